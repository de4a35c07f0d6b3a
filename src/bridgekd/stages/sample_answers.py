"""Sampled answers of a student to the test questions, for pass@k."""

from pathlib import Path

from bridgekd.grading.grade import grade_answer
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import read_answer_type
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import Recipe
from bridgekd.records import Example, SampledAnswer
from bridgekd.stages.early_stopping import PROMPTS, PromptMode
from bridgekd.stages.model_backend import ResumableGenerator, load_artifact_model, wrap_local_model
from bridgekd.stages.predict import PredictSettings, PredictStats, build_predict_settings
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.throughput import WorkKind

# The models of different seeds differ, so their samples need no seed of their own. One stream for
# all makes the samples of a base model the same for every seed of a comparison.
SEED = 0


class SampleAnswersSettings(PredictSettings):
    n_samples: int
    temperature: float


def build_sample_answers_settings(recipe: Recipe, prompt_mode: PromptMode) -> SampleAnswersSettings:
    """Return what the sampled answers of a student depend on."""
    predicted = build_predict_settings(recipe, "student", prompt_mode)
    options = recipe.evaluate
    return SampleAnswersSettings(
        **predicted.model_dump(), n_samples=options.n_samples, temperature=options.temperature
    )


@stage(version=1, kind=WorkKind.GENERATION, title="Sampled answers to the test questions")
def sample_answers(
    output_dir: Path,
    settings: SampleAnswersSettings,
    ctx: RunContext,
    pool: Artifact,
    test: Artifact,
    model: Artifact,
) -> PredictStats:
    """Write `n_samples` answers to every question of `test`, prompted as the model was trained.

    The stats count all samples.
    """
    examples, answer_type = read_rows(test.path / "test.parquet", Example), read_answer_type(pool)
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, settings.role, max_new_tokens)
    backend = wrap_local_model(load_artifact_model(model, ctx))
    prompts = [PROMPTS[settings.prompt_mode](e) for e in examples]
    samples = generator.sample(
        backend, prompts, settings.n_samples, SEED, temperature=settings.temperature
    )
    rows = []
    for example, texts in zip(examples, samples, strict=True):
        for k, text in enumerate(texts):
            graded = grade_answer(example, text, answer_type)
            rows.append(SampledAnswer(example.id, k, text, graded.answer, graded.correct))
    write_rows(output_dir / "samples.parquet", SampledAnswer, rows)
    return PredictStats(
        n_test=len(rows),
        n_correct=sum(r.correct for r in rows),
        max_new_tokens=max_new_tokens,
        generation=generator.report_speed(),
    )
