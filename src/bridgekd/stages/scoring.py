"""How hard every question is for the assistant, and where it lies: score_pool,
embed_pool; and for the student: weigh_student.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridgekd import lm
from bridgekd import settings as of
from bridgekd.core.calibration import Calibration, calibration
from bridgekd.core.prompts import answer_prompt, explain_prompt, render_question
from bridgekd.core.throughput import Throughput, WorkKind
from bridgekd.edges.rows import write_rows
from bridgekd.edges.sources import model_and_revision
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.grading.answer_type import AnswerType
from bridgekd.records import Example, Score, Signal
from bridgekd.selection.difficulty import MEASURES
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct
from bridgekd.selection.ranking import rank_normalize
from bridgekd.stages.asking import asked, score
from bridgekd.stages.asking import confidence as ask_confidence
from bridgekd.stages.buying import graded
from bridgekd.stages.live import Live
from bridgekd.stages.pool import open_model, read_answer_type, read_pool
from bridgekd.stages.stats import CalibrationStats, GenerationStats
from bridgekd.stages.writing import samples, written


class ScorePoolStats(GenerationStats):
    n_scored: int
    mean_difficulty: float


class EmbedPoolStats(Stats):
    n_embedded: int
    width: int


class WeighStudentStats(GenerationStats, CalibrationStats):
    mean_distinct: float
    mean_confidence: float


@stage(version=4, kind=WorkKind.SCORING, title="Difficulty of the pool")
def score_pool(
    out: Path,
    s: of.ScorePool,
    live: Live,
    pool: Artifact,
    model: Artifact,
    *committee: Artifact,
) -> ScorePoolStats:
    """How hard every question is for the warm assistant, and, unless a server scores, its embedding
    from the same pass.

    A measure that scores answers has them written by the assistant and by its `committee`; the
    pass is then for the embeddings alone.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    measure, options = MEASURES.load(s.difficulty), MEASURES.parse_options(s.difficulty)
    prompts = [answer_prompt(e) for e in examples] if measure.score_answers else []
    speed, batch_size = Throughput(), live.runtime.assistant_batch_size
    size: dict[str, Any] = {
        "max_new_tokens": s.max_new_tokens, "throughput": speed, "batch_size": batch_size,
    }  # fmt: skip
    texts: list[Sequence[str]] = []  # of each question
    with asked(model, s.scoring, out, live) as local:
        scored = score(
            local,
            examples,
            measure=None if measure.score_answers else measure,
            max_new_tokens=s.max_new_tokens,
            batch_size=batch_size,
            progress=live.progress,
        )
        difficulty = scored.difficulty
        if measure.samples_answers:
            n = measure.count_answers(options)
            texts += samples(out, local, prompts, n, seed=s.seed, live=live, **size)
        votes = []
        if measure.needs_committee:
            size |= {"label": "member 0", "name": "member-0"}
            votes = [written(out, local, prompts, live=live, **size)]
    for k, member in enumerate(committee, start=1):
        with asked(member, s.scoring, out, live) as other:
            size |= {"label": f"member {k}", "name": f"member-{k}"}
            votes += [written(out, other, prompts, live=live, **size)]
    if measure.needs_committee:
        texts += zip(*votes, strict=True)
    if measure.score_answers:
        answers = _read(examples, answer_type, texts)
        difficulty = np.array([measure.score_answers(own) for own in answers])
    rows = (Score(e.id, float(d)) for e, d in zip(examples, difficulty, strict=True))
    write_rows(out / "scores.parquet", Score, rows)
    if scored.embeddings.shape[1]:
        np.save(out / "embeddings.npy", scored.embeddings)
    return ScorePoolStats(
        n_scored=len(examples),
        mean_difficulty=round(float(np.mean(difficulty)), 4),
        generation=speed.to_stats(),
    )


@stage(version=1, kind=WorkKind.SCORING, title="Embeddings of the pool")
def embed_pool(
    out: Path, s: of.EmbedPool, live: Live, pool: Artifact, encoder: Artifact
) -> EmbedPoolStats:
    """The questions' embeddings by a sentence-transformers model, in place of the assistant's."""
    name, _ = model_and_revision(encoder)
    texts = [render_question(e) for e in read_pool(pool)]
    embeddings = lm.embed(
        name,
        texts,
        device=live.device,
        batch_size=live.runtime.assistant_batch_size,
        progress=live.progress,
    )
    np.save(out / "embeddings.npy", embeddings)
    return EmbedPoolStats(n_embedded=len(texts), width=int(embeddings.shape[1]))


@stage(version=2, kind=WorkKind.GENERATION, title="The student's answers")
def weigh_student(
    out: Path, s: of.Signals, live: Live, pool: Artifact, model: Artifact, assistant: Artifact
) -> WeighStudentStats:
    """How unsure the student is of every question: signals 1 and 2 of TA-in-the-Loop.

    Signal 1 is the number of different answers among the student's samples; signal 2 the
    assistant's confidence in a sample that gives the most frequent one. That they are combined as
    the mean of their places in the pool is our reading.
    """
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    prompts = [explain_prompt(e) for e in examples]
    speed = Throughput()
    texts = samples(
        out, open_model(model, live), prompts, s.samples,
        seed=s.seed, max_new_tokens=s.max_new_tokens,
        batch_size=live.runtime.student_batch_size, live=live,
        throughput=speed,
    )  # fmt: skip
    answers = _read(examples, answer_type, texts)
    distinct = np.array([count_distinct(a) for a in answers], dtype=float)
    said = [
        t[a.index(Counter(a).most_common(1)[0][0])] for t, a in zip(texts, answers, strict=True)
    ]
    with asked(assistant, s.scoring, out, live) as judge:
        confidence = ask_confidence(
            judge,
            list(zip(examples, said, strict=True)),
            how=s.confidence.how,
            batch_size=live.runtime.assistant_batch_size,
            progress=live.progress,
            label="weigh the student's answers",
        )
    unsure = (rank_normalize(distinct) + rank_normalize(1 - confidence)) / 2
    rows = [Score(e.id, float(u)) for e, u in zip(examples, unsure, strict=True)]
    write_rows(out / "scores.parquet", Score, rows)
    signals = [
        Signal(e.id, int(d), float(c))
        for e, d, c in zip(examples, distinct, confidence, strict=True)
    ]
    write_rows(out / "signals.parquet", Signal, signals)
    return WeighStudentStats(
        mean_distinct=round(float(distinct.mean()), 4),
        mean_confidence=round(float(confidence.mean()), 4),
        calibration=_told(examples, answer_type, said, confidence),
        generation=speed.to_stats(),
    )


def _told(
    examples: Sequence[Example],
    answer_type: AnswerType,
    said: Sequence[str],
    confidence: np.ndarray,
) -> Calibration | None:
    """The confidence held against the gold answers, where there are some."""
    known = np.array([e.answer is not None for e in examples])
    right = np.array(
        [graded(e, t, answer_type).correct for e, t in zip(examples, said, strict=True)]
    )
    if not known.any():
        return None
    return calibration(confidence[known], right[known])


def _read(
    examples: Sequence[Example], answer_type: AnswerType, texts: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The canonical answers of every example's texts."""
    return [
        [answer_type.extract_answer(text, e.choices) for text in said]
        for e, said in zip(examples, texts, strict=True)
    ]
