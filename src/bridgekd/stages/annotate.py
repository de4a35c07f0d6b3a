"""The assistant's own rationales for the pool: one per question, or several samples."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bridgekd.grading.grade import FilterName, check_rationale, extract_answers, grade_answer
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import read_answer_type, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.prompts import render_cot_prompt
from bridgekd.recipe import ConfidenceOptions, Recipe, TokenLimit
from bridgekd.records import Rationale
from bridgekd.stages.check_rationales import (
    calibrate_rationales,
    drop_duplicates,
    filter_by_agreement,
    filter_by_confidence,
)
from bridgekd.stages.in_context import choose_fitting_shots, read_shots, render_with_shots
from bridgekd.stages.model_backend import BackendSettings, ResumableGenerator, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, GenerationStats, KeptStats
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.throughput import WorkKind

N_VOTES = 5


class AnnotateSettings(BackendSettings):
    """`n_samples` answers per question are drawn for the filter `self_consistent`, else none."""

    filter: FilterName
    confidence: ConfidenceOptions | None
    n_samples: int
    max_new_tokens: TokenLimit
    seed: int


class AnnotateStats(KeptStats, GenerationStats, CalibrationStats):
    n_rationales: int
    correct_fraction: float


class SampleRationalesSettings(BackendSettings):
    filter: FilterName
    n_samples: int
    max_new_tokens: TokenLimit
    seed: int


class SampleRationalesStats(KeptStats, GenerationStats):
    n_rationales: int


def build_annotate_settings(recipe: Recipe) -> AnnotateSettings:
    """Return what an annotation depends on. Options that its filter does not use are constants."""
    rule, assistant = recipe.annotate.filter, recipe.assistant
    is_consistent, is_confident = rule == "self_consistent", rule == "confident"
    return AnnotateSettings(
        filter=rule,
        confidence=recipe.confidence if is_confident else None,
        n_samples=(recipe.annotate.n_samples or N_VOTES) if is_consistent else 0,
        max_new_tokens=assistant.max_new_tokens,
        seed=recipe.seed if is_consistent else 0,
        backend=assistant.generation_backend,
        scoring=assistant.scoring_backend if is_confident else "transformers",
    )


def build_sample_settings(
    recipe: Recipe, n_samples: int, rule: FilterName = "correct"
) -> SampleRationalesSettings:
    """Return what sampling `n_samples` rationales per question, with a filter, depends on."""
    return SampleRationalesSettings(
        filter=rule,
        n_samples=n_samples,
        max_new_tokens=recipe.assistant.max_new_tokens,
        seed=recipe.seed,
        backend=recipe.assistant.generation_backend,
    )


def build_student_sample_settings(recipe: Recipe, n_samples: int) -> SampleRationalesSettings:
    """Return what sampling `n_samples` rationales of the student depends on: this process."""
    return SampleRationalesSettings(
        filter="correct",
        n_samples=n_samples,
        max_new_tokens=recipe.student.max_new_tokens,
        seed=recipe.seed,
    )


@stage(version=4, kind=WorkKind.GENERATION, title="The assistant's own rationales")
def annotate(
    output_dir: Path, settings: AnnotateSettings, ctx: RunContext, pool: Artifact, model: Artifact
) -> AnnotateStats:
    """Write the assistant's rationale for every question of the pool."""
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    prompts = [render_cot_prompt(e) for e in examples]
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, "assistant", max_new_tokens)
    samples: Sequence[Sequence[str]] = ()
    with ExitStack() as stack:
        backend = stack.enter_context(open_backend(model, settings.backend, output_dir, ctx))
        prompt_format = backend.prompt_format
        texts = generator.generate(backend, prompts, "annotate the pool")
        if settings.n_samples:
            samples = generator.sample(backend, prompts, settings.n_samples, settings.seed)
        rows = [
            check_rationale(e, text, answer_type, "assistant", settings.filter)
            for e, text in zip(examples, texts, strict=True)
        ]
        if settings.confidence is not None:
            if settings.scoring != settings.backend:
                stack.close()  # the device has memory for one of them at a time
                backend = stack.enter_context(
                    open_backend(model, settings.scoring, output_dir, ctx)
                )
            rows = filter_by_confidence(rows, examples, backend, settings.confidence, ctx)
    if samples:
        rows = filter_by_agreement(rows, extract_answers(examples, samples, answer_type))
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    n_correct = sum(
        grade_answer(e, t, answer_type).correct for e, t in zip(examples, texts, strict=True)
    )
    return AnnotateStats(
        n_rationales=len(rows),
        n_kept=sum(r.kept for r in rows),
        correct_fraction=round(n_correct / len(rows), 4),
        calibration=calibrate_rationales(rows, examples, answer_type),
        generation=generator.report_speed(),
        prompt_format=prompt_format,
    )


@stage(version=4, kind=WorkKind.GENERATION, title="The assistant's sampled rationales")
def sample_rationales(
    output_dir: Path,
    settings: SampleRationalesSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    *,
    shots: Sequence[Artifact] = (),
    few_shot: Sequence[Artifact] = (),
) -> SampleRationalesStats:
    """Write several rationales of the assistant per question: those that the filter keeps, and of
    equal texts only the first. The kept rationales of `shots` and the rows of `few_shot` files are
    in-context examples.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, "assistant", max_new_tokens)
    fitting = choose_fitting_shots(
        read_shots(pool, shots, few_shot), examples, model, max_new_tokens, ctx
    )
    prompts = [render_with_shots(e, fitting) for e in examples]
    with open_backend(model, settings.backend, output_dir, ctx) as backend:
        samples = generator.sample(backend, prompts, settings.n_samples, settings.seed)
    rows = [
        row
        for e, texts in zip(examples, samples, strict=True)
        for row in drop_duplicates(
            [check_rationale(e, text, answer_type, "assistant", settings.filter) for text in texts]
        )
    ]
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    return SampleRationalesStats(
        n_rationales=len(rows),
        n_kept=sum(r.kept for r in rows),
        generation=generator.report_speed(),
        prompt_format=backend.prompt_format,
    )
