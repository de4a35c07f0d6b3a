"""Scores of the pool: its difficulty for the assistant (score_pool), its embeddings (embed_pool),
and the uncertainty of the student (score_student_uncertainty).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgekd import lm
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.grading.grade import extract_answers
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.read_pool import read_answer_type, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import render_answer_prompt, render_cot_prompt, render_question
from bridgekd.recipe import ConfidenceOptions, FrozenModel, Recipe, TokenLimit
from bridgekd.records import Example, Score
from bridgekd.selection.check_recipe import check_measure
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct
from bridgekd.selection.ranking import rank_normalize
from bridgekd.stages.check_rationales import calibrate_confidence
from bridgekd.stages.model_backend import BackendSettings, ResumableGenerator, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, GenerationStats
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.throughput import WorkKind
from bridgekd.variants import VariantSettings


class ScorePoolSettings(BackendSettings):
    difficulty: VariantSettings
    max_new_tokens: TokenLimit
    seed: int


class ScorePoolStats(GenerationStats):
    n_scored: int
    mean_difficulty: float


class EmbedPoolSettings(FrozenModel):
    """Only the model changes the embeddings, and it is an input."""


class EmbedPoolStats(Stats):
    n_embedded: int
    width: int


class StudentUncertaintySettings(BackendSettings):
    n_samples: int
    max_new_tokens: TokenLimit
    confidence: ConfidenceOptions
    seed: int


class StudentUncertaintyStats(GenerationStats, CalibrationStats):
    mean_distinct: float
    mean_confidence: float


def build_score_pool_settings(recipe: Recipe, folder: Path) -> ScorePoolSettings:
    """Return what the scores depend on. Options that the measure does not use are constants."""
    settings = MEASURES.resolve(recipe.select.difficulty, folder)
    measure = MEASURES.load(settings)
    answer_type = load_answer_type(GRADERS.resolve(recipe.data.answer_type, folder))
    check_measure(recipe, measure, answer_type)
    return ScorePoolSettings(
        difficulty=settings,
        max_new_tokens=0 if measure.needs_gold else recipe.assistant.max_new_tokens,
        seed=recipe.seed if measure.samples_answers else 0,
        scoring=recipe.assistant.scoring_backend,
    )


def count_committee(settings: ScorePoolSettings) -> int:
    """Return the number of assistants that score the pool."""
    measure = MEASURES.load(settings.difficulty)
    if not measure.needs_committee:
        return 1
    return measure.count_answers(MEASURES.parse_options(settings.difficulty))


def build_uncertainty_settings(recipe: Recipe, n_samples: int) -> StudentUncertaintySettings:
    """Return what the student's uncertainty depends on."""
    return StudentUncertaintySettings(
        n_samples=n_samples,
        max_new_tokens=recipe.student.max_new_tokens,
        confidence=recipe.confidence,
        seed=recipe.seed,
        scoring=recipe.assistant.scoring_backend,
    )


@stage(version=6, kind=WorkKind.SCORING, title="Difficulty of the pool")
def score_pool(
    output_dir: Path,
    settings: ScorePoolSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    *committee: Artifact,
) -> ScorePoolStats:
    """Write the difficulty of every question for the warm assistant, and its embedding from the
    same pass. A server gives no embeddings.

    For a measure that scores answers, the assistant and its `committee` generate them, and the pass
    is only for the embeddings.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    measure = MEASURES.load(settings.difficulty)
    prompts = [render_answer_prompt(e) for e in examples] if measure.score_answers else []
    batch_size = ctx.runtime.assistant_batch_size
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model, *committee)
    generator = ResumableGenerator(output_dir, ctx, "assistant", max_new_tokens)
    answer_texts: list[Sequence[str]] = []  # by question
    member_texts = []  # by member of the committee, the assistant first
    with open_backend(model, settings.scoring, output_dir, ctx) as backend:
        scored = backend.score_examples(
            examples,
            measure=None if measure.score_answers else measure,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=ctx.progress,
        )
        if measure.samples_answers:
            n_samples = measure.count_answers(MEASURES.parse_options(settings.difficulty))
            answer_texts += generator.sample(backend, prompts, n_samples, settings.seed)
        if measure.needs_committee:
            member_texts = [generator.generate(backend, prompts, "member 0", "member-0")]
    for k, member in enumerate(committee, start=1):
        with open_backend(member, settings.scoring, output_dir, ctx) as backend:
            member_texts += [generator.generate(backend, prompts, f"member {k}", f"member-{k}")]
    if measure.needs_committee:
        answer_texts += zip(*member_texts, strict=True)
    difficulty = scored.difficulty
    if measure.score_answers:
        answers = extract_answers(examples, answer_texts, answer_type)
        difficulty = np.array([measure.score_answers(each) for each in answers])
    _write_scores(output_dir, examples, difficulty)
    if scored.embeddings.shape[1]:
        np.save(output_dir / "embeddings.npy", scored.embeddings)
    return ScorePoolStats(
        n_scored=len(examples),
        mean_difficulty=round(float(np.mean(difficulty)), 4),
        generation=generator.report_speed(),
    )


@stage(version=2, kind=WorkKind.SCORING, title="Embeddings of the pool")
def embed_pool(
    output_dir: Path,
    settings: EmbedPoolSettings,
    ctx: RunContext,
    pool: Artifact,
    encoder: Artifact,
) -> EmbedPoolStats:
    """Write embeddings from a sentence-transformers model, which replace the assistant's."""
    name, _ = get_model_and_revision(encoder)
    embeddings = lm.embed_texts(
        name,
        [render_question(e) for e in read_pool(pool)],
        device=ctx.device,
        batch_size=ctx.runtime.assistant_batch_size,
        progress=ctx.progress,
    )
    np.save(output_dir / "embeddings.npy", embeddings)
    return EmbedPoolStats(n_embedded=len(embeddings), width=int(embeddings.shape[1]))


@stage(version=4, kind=WorkKind.GENERATION, title="The student's answers")
def score_student_uncertainty(
    output_dir: Path,
    settings: StudentUncertaintySettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    assistant: Artifact,
) -> StudentUncertaintyStats:
    """Write the uncertainty of the student, `model`: signals 1 and 2 of TA-in-the-Loop.

    Signal 1 is the number of distinct answers among the student's samples. Signal 2 is the
    assistant's confidence in a sample with the most frequent answer. Our reading of the paper
    combines them as the mean of their ranks in the pool.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    prompts = [render_cot_prompt(e) for e in examples]
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, "student", max_new_tokens)
    with open_backend(model, "transformers", output_dir, ctx) as student:
        samples = generator.sample(student, prompts, settings.n_samples, settings.seed)
    answers = extract_answers(examples, samples, answer_type)
    distinct = np.array([count_distinct(a) for a in answers], dtype=float)
    majority = [Counter(a).most_common(1)[0][0] for a in answers]
    texts = [t[a.index(m)] for t, a, m in zip(samples, answers, majority, strict=True)]
    with open_backend(assistant, settings.scoring, output_dir, ctx) as backend:
        confidence = backend.estimate_confidence(
            list(zip(examples, texts, strict=True)),
            measure=settings.confidence.measure,
            batch_size=ctx.runtime.assistant_batch_size,
            progress=ctx.progress,
            label="score the student's answers",
        )
    uncertainty = (rank_normalize(distinct) + rank_normalize(1 - confidence)) / 2
    _write_scores(output_dir, examples, uncertainty)
    return StudentUncertaintyStats(
        mean_distinct=round(float(distinct.mean()), 4),
        mean_confidence=round(float(confidence.mean()), 4),
        calibration=calibrate_confidence(confidence.tolist(), majority, examples, answer_type),
        generation=generator.report_speed(),
    )


def _write_scores(output_dir: Path, examples: Sequence[Example], difficulty: np.ndarray) -> None:
    rows = (Score(e.id, float(d)) for e, d in zip(examples, difficulty, strict=True))
    write_rows(output_dir / "scores.parquet", Score, rows)
