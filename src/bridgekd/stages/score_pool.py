"""Scores of the pool: its difficulty for the assistant (score_pool), its embeddings (embed_pool),
and the uncertainty of the student (score_student_uncertainty).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridgekd import lm
from bridgekd.grading.answer_type import AnswerType, load_answer_type
from bridgekd.grading.grade import extract_answers
from bridgekd.grading.graders import GRADERS
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.read_pool import read_answer_type, read_pool
from bridgekd.io.row_files import write_rows
from bridgekd.io.sources import get_model_and_revision
from bridgekd.prompts import render_answer_prompt, render_cot_prompt, render_question
from bridgekd.recipe import ConfidenceOptions, FrozenModel, Recipe, Role, TokenLimit
from bridgekd.records import Example, Score
from bridgekd.selection.check_recipe import check_measure
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct
from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.selection.quotas import choose_strata
from bridgekd.selection.ranking import rank_normalize
from bridgekd.stages.check_rationales import calibrate_confidence
from bridgekd.stages.group_evidence import read_pass_rates
from bridgekd.stages.model_backend import BackendSettings, ResumableGenerator, open_backend
from bridgekd.stages.row_settings import HALVES
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, GenerationStats, ScoredStats
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.stages.train import choose_half
from bridgekd.throughput import WorkKind
from bridgekd.variants import VariantRef, VariantSettings


class ScorePoolSettings(BackendSettings):
    difficulty: VariantSettings
    max_new_tokens: TokenLimit
    seed: int


class ScorePoolStats(GenerationStats, ScoredStats):
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
        seed=recipe.seed if measure.samples_answers or measure.score_reduction else 0,
        scoring=recipe.assistant.scoring_backend,
    )


def build_loss_settings(recipe: Recipe, role: Role) -> ScorePoolSettings:
    """Return the scoring of the gold answers by their loss. The student is in this process."""
    return ScorePoolSettings(
        difficulty=MEASURES.resolve(VariantRef(name="loss")),
        max_new_tokens=0,
        seed=0,
        scoring=recipe.assistant.scoring_backend if role == "assistant" else "transformers",
    )


def count_committee(settings: ScorePoolSettings) -> int:
    """Return the number of assistants that score the pool."""
    measure = MEASURES.load(settings.difficulty)
    if not measure.needs_committee:
        return 1
    return measure.count_answers(MEASURES.parse_options(settings.difficulty))


def count_pool_samples(settings: ScorePoolSettings) -> int:
    """Return the number of rationales of the untouched assistant that the measure needs."""
    measure = MEASURES.load(settings.difficulty)
    if measure.score_pass_rate is None:
        return 0
    return measure.count_answers(MEASURES.parse_options(settings.difficulty))


def needs_halves(settings: ScorePoolSettings) -> bool:
    """Return whether the measure needs assistants that were trained on halves of the pool."""
    return MEASURES.load(settings.difficulty).score_reduction is not None


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
    samples: Artifact | None = None,
    halves: Sequence[Artifact] = (),
) -> ScorePoolStats:
    """Write the difficulty of every question for the warm assistant, and its embedding from the
    same pass. A server gives no embeddings.

    For a measure that scores answers, the assistant and its `committee` generate them, and the pass
    is only for the embeddings, as for one that scores `samples` of the untouched assistant or
    `halves`: for each half of the pool, the assistant before and after the training on it.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    measure = MEASURES.load(settings.difficulty)
    prompts = [render_answer_prompt(e) for e in examples] if measure.score_answers else []
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model, *committee)
    generator = ResumableGenerator(output_dir, ctx, "assistant", max_new_tokens)
    answer_texts: list[Sequence[str]] = []  # by question
    member_texts = []  # by member of the committee, the assistant first
    with open_backend(model, settings.scoring, output_dir, ctx) as backend:
        scored = backend.score_examples(
            examples,
            measure=measure if measure.reads_model else None,
            max_new_tokens=max_new_tokens,
            batch_size=ctx.runtime.assistant_batch_size,
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
    if measure.score_pass_rate is not None:
        difficulty = _score_pass_rates(measure, samples, examples, answer_type)
    if measure.score_reduction is not None:
        reduction = _compute_reduction(output_dir, settings, ctx, examples, halves)
        strata = choose_strata([e.domain for e in examples], scored.embeddings, settings.seed)
        difficulty = measure.score_reduction(reduction, strata)
    write_scores(output_dir, examples, difficulty)
    if scored.embeddings.shape[1]:
        np.save(output_dir / "embeddings.npy", scored.embeddings)
    return ScorePoolStats(
        n_scored=len(examples),
        mean_difficulty=round(float(np.mean(difficulty)), 4),
        generation=generator.report_speed(),
    )


def _score_pass_rates(
    measure: DifficultyMeasure[Any],
    samples: Artifact | None,
    examples: Sequence[Example],
    answer_type: AnswerType,
) -> np.ndarray:
    assert samples is not None and measure.score_pass_rate is not None
    pass_rates = read_pass_rates(samples, examples, answer_type)
    return np.array([measure.score_pass_rate(p) for p in pass_rates.tolist()])


def _compute_reduction(
    output_dir: Path,
    settings: ScorePoolSettings,
    ctx: RunContext,
    examples: Sequence[Example],
    halves: Sequence[Artifact],
) -> np.ndarray:
    """Return the reduction of each question's loss by training on the other half, [n] in nats."""
    reduction = np.zeros(len(examples))
    for half, other, models in zip(HALVES, HALVES[::-1], (halves[:2], halves[2:]), strict=True):
        others = choose_half(len(examples), other, settings.seed)
        held_out = [examples[i] for i in others]
        for sign, model in zip((1, -1), models, strict=True):
            with open_backend(model, settings.scoring, output_dir, ctx) as backend:
                scored = backend.score_examples(
                    held_out,
                    batch_size=ctx.runtime.assistant_batch_size,
                    progress=ctx.progress,
                    label=f"score half {half}",
                )
            reduction[others] += sign * scored.difficulty
    return reduction


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
    write_scores(output_dir, examples, uncertainty)
    return StudentUncertaintyStats(
        mean_distinct=round(float(distinct.mean()), 4),
        mean_confidence=round(float(confidence.mean()), 4),
        calibration=calibrate_confidence(confidence.tolist(), majority, examples, answer_type),
        generation=generator.report_speed(),
    )


def write_scores(output_dir: Path, examples: Sequence[Example], difficulty: np.ndarray) -> None:
    """Write the difficulty of each question, [n]."""
    rows = (Score(e.id, float(d)) for e, d in zip(examples, difficulty, strict=True))
    write_rows(output_dir / "scores.parquet", Score, rows)
