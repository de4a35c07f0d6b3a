"""How difficult every question is, and where it is: score_pool, embed_pool; and how uncertain the
student is of it: score_student_uncertainty.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgekd import lm
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.grading.grade import extract_answers, grade_answer
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.read_pool import read_answer_type, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import render_answer_prompt, render_cot_prompt, render_question
from bridgekd.recipe import ConfidenceOptions, FrozenModel, Recipe
from bridgekd.records import Example, Score
from bridgekd.selection.check_recipe import check_measure
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct
from bridgekd.selection.ranking import rank_normalize
from bridgekd.stages.model_backend import BackendSettings, open_backend
from bridgekd.stages.resumable_generation import ResumableGenerator
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, GenerationStats
from bridgekd.stats.calibration import Calibration, compute_calibration
from bridgekd.throughput import WorkKind
from bridgekd.variants import VariantSettings


class ScorePoolSettings(BackendSettings):
    difficulty: VariantSettings
    max_new_tokens: int
    seed: int


class ScorePoolStats(GenerationStats):
    n_scored: int
    mean_difficulty: float


class EmbedPoolSettings(FrozenModel):
    """The model is an input, and nothing else changes its embeddings."""


class EmbedPoolStats(Stats):
    n_embedded: int
    width: int


class StudentUncertaintySettings(BackendSettings):
    n_samples: int
    max_new_tokens: int
    confidence: ConfidenceOptions
    seed: int


class StudentUncertaintyStats(GenerationStats, CalibrationStats):
    mean_distinct: float
    mean_confidence: float


def build_score_pool_settings(recipe: Recipe, folder: Path) -> ScorePoolSettings:
    """Return what the scores depend on. What the measure does not use is a constant."""
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
    """Return how many assistants score the pool."""
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


@stage(version=5, kind=WorkKind.SCORING, title="Difficulty of the pool")
def score_pool(
    output_dir: Path,
    settings: ScorePoolSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    *committee: Artifact,
) -> ScorePoolStats:
    """How difficult every question is for the warm assistant, and, unless a server scores, its
    embedding from the same pass.

    A measure that scores answers has them written by the assistant and by its `committee`; the
    pass is then for the embeddings alone.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    measure = MEASURES.load(settings.difficulty)
    options = MEASURES.parse_options(settings.difficulty)
    prompts = [render_answer_prompt(e) for e in examples] if measure.score_answers else []
    batch_size = ctx.runtime.assistant_batch_size
    writer = ResumableGenerator(output_dir, ctx, batch_size, settings.max_new_tokens)
    texts: list[Sequence[str]] = []  # of each question
    votes = []  # of each member
    with open_backend(model, settings.scoring, output_dir, ctx) as backend:
        scored = backend.score_examples(
            examples,
            measure=None if measure.score_answers else measure,
            max_new_tokens=settings.max_new_tokens,
            batch_size=batch_size,
            progress=ctx.progress,
        )
        difficulty = scored.difficulty
        if measure.samples_answers:
            n_samples = measure.count_answers(options)
            texts += writer.sample(backend, prompts, n_samples, settings.seed)
        if measure.needs_committee:
            votes = [writer.generate(backend, prompts, "member 0", "member-0")]
    for k, member in enumerate(committee, start=1):
        with open_backend(member, settings.scoring, output_dir, ctx) as backend:
            votes += [writer.generate(backend, prompts, f"member {k}", f"member-{k}")]
    if measure.needs_committee:
        texts += zip(*votes, strict=True)
    if measure.score_answers:
        answers = extract_answers(examples, texts, answer_type)
        difficulty = np.array([measure.score_answers(own) for own in answers])
    rows = (Score(e.id, float(d)) for e, d in zip(examples, difficulty, strict=True))
    write_rows(output_dir / "scores.parquet", Score, rows)
    if scored.embeddings.shape[1]:
        np.save(output_dir / "embeddings.npy", scored.embeddings)
    return ScorePoolStats(
        n_scored=len(examples),
        mean_difficulty=round(float(np.mean(difficulty)), 4),
        generation=writer.speed.to_stats(),
    )


@stage(version=2, kind=WorkKind.SCORING, title="Embeddings of the pool")
def embed_pool(
    output_dir: Path,
    settings: EmbedPoolSettings,
    ctx: RunContext,
    pool: Artifact,
    encoder: Artifact,
) -> EmbedPoolStats:
    """The questions' embeddings by a sentence-transformers model, in place of the assistant's."""
    name, _ = get_model_and_revision(encoder)
    texts = [render_question(e) for e in read_pool(pool)]
    embeddings = lm.embed_texts(
        name,
        texts,
        device=ctx.device,
        batch_size=ctx.runtime.assistant_batch_size,
        progress=ctx.progress,
    )
    np.save(output_dir / "embeddings.npy", embeddings)
    return EmbedPoolStats(n_embedded=len(texts), width=int(embeddings.shape[1]))


@stage(version=3, kind=WorkKind.GENERATION, title="The student's answers")
def score_student_uncertainty(
    output_dir: Path,
    settings: StudentUncertaintySettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    assistant: Artifact,
) -> StudentUncertaintyStats:
    """How uncertain the student, `model`, is of every question: signals 1 and 2 of TA-in-the-Loop.

    Signal 1 is the number of distinct answers among the student's samples. Signal 2 is the
    assistant's confidence in a sample with the most frequent answer. Their combination, the mean
    of their ranks in the pool, is our reading of the paper.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    prompts = [render_cot_prompt(e) for e in examples]
    writer = ResumableGenerator(
        output_dir, ctx, ctx.runtime.student_batch_size, settings.max_new_tokens
    )
    with open_backend(model, "transformers", output_dir, ctx) as student:
        texts = writer.sample(student, prompts, settings.n_samples, settings.seed)
    answers = extract_answers(examples, texts, answer_type)
    distinct = np.array([count_distinct(a) for a in answers], dtype=float)
    majority = [
        t[a.index(Counter(a).most_common(1)[0][0])] for t, a in zip(texts, answers, strict=True)
    ]
    with open_backend(assistant, settings.scoring, output_dir, ctx) as judge:
        confidence = judge.estimate_confidence(
            list(zip(examples, majority, strict=True)),
            measure=settings.confidence.measure,
            batch_size=ctx.runtime.assistant_batch_size,
            progress=ctx.progress,
            label="weigh the student's answers",
        )
    uncertainty = (rank_normalize(distinct) + rank_normalize(1 - confidence)) / 2
    rows = [Score(e.id, float(u)) for e, u in zip(examples, uncertainty, strict=True)]
    write_rows(output_dir / "scores.parquet", Score, rows)
    return StudentUncertaintyStats(
        mean_distinct=round(float(distinct.mean()), 4),
        mean_confidence=round(float(confidence.mean()), 4),
        calibration=_calibrate(examples, answer_type, majority, confidence),
        generation=writer.speed.to_stats(),
    )


def _calibrate(
    examples: Sequence[Example],
    answer_type: AnswerType,
    texts: Sequence[str],
    confidence: np.ndarray,
) -> Calibration | None:
    """The confidence against the gold answers; None without any."""
    known = np.array([e.answer is not None for e in examples])
    correct = [
        grade_answer(e, t, answer_type).correct for e, t in zip(examples, texts, strict=True)
    ]
    return compute_calibration(confidence[known], np.array(correct)[known]) if known.any() else None
