"""A model's answers to questions that it was not trained on."""

from dataclasses import replace
from pathlib import Path

from bridgekd.grading.grade import grade_answer
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import read_answer_type
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import Recipe, Role, TokenLimit
from bridgekd.records import Example, Prediction
from bridgekd.stages.early_stopping import PROMPTS, PromptMode
from bridgekd.stages.model_backend import BackendSettings, ResumableGenerator, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import GenerationStats
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.throughput import WorkKind


class PredictSettings(BackendSettings):
    role: Role
    prompt_mode: PromptMode
    max_new_tokens: TokenLimit


class PredictStats(GenerationStats):
    """`max_new_tokens` is the number that was used."""

    n_test: int
    n_correct: int
    max_new_tokens: int


def build_predict_settings(recipe: Recipe, role: Role, prompt_mode: PromptMode) -> PredictSettings:
    """Return what the predictions of a model of this role depend on."""
    if role == "assistant":
        backend, limit = recipe.assistant.generation_backend, recipe.assistant.max_new_tokens
    else:  # the student is too small to need a server
        backend, limit = "transformers", recipe.student.max_new_tokens
    return PredictSettings(
        role=role, prompt_mode=prompt_mode, max_new_tokens=limit, backend=backend
    )


@stage(version=5, kind=WorkKind.GENERATION, title="Answers to the test questions")
def predict(
    output_dir: Path,
    settings: PredictSettings,
    ctx: RunContext,
    pool: Artifact,
    test: Artifact,
    model: Artifact,
) -> PredictStats:
    """Write a model's greedy answers to the questions of `test`, prompted as it was trained."""
    examples, answer_type = read_rows(test.path / "test.parquet", Example), read_answer_type(pool)
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, settings.role, max_new_tokens)
    prompts = [PROMPTS[settings.prompt_mode](e) for e in examples]
    label = f"answer the {'test questions' if test.stage == 'load_test' else 'pilot'}"
    with open_backend(model, settings.backend, output_dir, ctx) as backend:
        texts = generator.generate_with_lengths(backend, prompts, label)
    rows = [
        replace(grade_answer(e, text, answer_type), **length._asdict())
        for e, (text, length) in zip(examples, texts, strict=True)
    ]
    write_rows(output_dir / "predictions.parquet", Prediction, rows)
    return PredictStats(
        n_test=len(rows),
        n_correct=sum(r.correct for r in rows),
        max_new_tokens=max_new_tokens,
        generation=generator.report_speed(),
        prompt_format=backend.prompt_format,
    )
