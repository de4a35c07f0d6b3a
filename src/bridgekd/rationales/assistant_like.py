"""The rationale with the most sentences that are the assistant's and not the student's."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from bridgekd.rationales import (
    Candidates,
    KeepOptions,
    Selector,
    SentenceScore,
    keep_first,
)

Origin = Literal["assistant", "student", "common"]


class AssistantLikeOptions(KeepOptions):
    """margin: the difference of probabilities above which a sentence belongs to one model (beta of
    the paper, which used 0.05, 0.1 and 0.15).
    """

    margin: float = Field(0.1, ge=0, lt=1)


def classify_sentence(score: SentenceScore, margin: float) -> Origin:
    """Return where a sentence comes from: with D = p_assistant - p_student, `assistant` if D is
    above the margin, `student` if it is below its negative, else `common` (arXiv 2512.20908).

    >>> classify_sentence(SentenceScore(assistant=0.6, student=0.3), margin=0.1)
    'assistant'
    """
    difference = score.assistant - score.student
    if difference > margin:
        return "assistant"
    return "student" if difference < -margin else "common"


def count_origins(sentences: Sequence[SentenceScore], margin: float) -> Counter[Origin]:
    """Return the number of sentences of each origin."""
    return Counter(classify_sentence(score, margin) for score in sentences)


def select_assistant_like(candidates: Candidates, options: AssistantLikeOptions) -> list[int]:
    """Return the positions of the rationales with the largest count of the assistant's sentences.

    The paper measures the teacher's sentences. A paid teacher gives no probabilities of a given
    text, so the assistant takes its place: our reading. The count prefers long rationales.
    """
    counts = [count_origins(s, options.margin)["assistant"] for s in candidates.sentences]
    return keep_first([-n for n in counts], options.n_kept)


SELECTOR = Selector(
    name="assistant_like",
    title="Rationales like the assistant's",
    summary="Keeps the rationale with the most sentences that are likelier for the assistant than "
    "for the student.",
    paper="arXiv 2512.20908",
    select=select_assistant_like,
    options=AssistantLikeOptions,
    needs_sentences=True,
)
