"""The disagreement of a committee of assistants."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import entropy

from bridgekd.selection.measure import DifficultyMeasure


class DisagreementOptions(BaseModel):
    """`committee_size`: assistants, each warmed up on different questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    committee_size: int = Field(3, ge=2, le=16)


def vote_entropy(answers: Sequence[str]) -> float:
    """Return -sum_a (v_a / k) log(v_a / k) / log k in [0, 1]; v_a is the number of answers a.

    Dagan and Engelson 1995. 0 if all k answers agree and for k < 2; 1 if no two agree. Unreadable
    answers ("") count as one answer (our choice).
    >>> vote_entropy(["", "", "a", "a"])
    0.5
    """
    k = len(answers)
    if k < 2:
        return 0.0
    return float(min(1.0, entropy(list(Counter(answers).values())) / np.log(k)))


MEASURE = DifficultyMeasure(
    name="disagreement",
    title="Committee disagreement",
    summary="The vote entropy of a committee of assistants that were warmed up on different "
    "questions.",
    paper="Dagan and Engelson 1995",
    options=DisagreementOptions,
    score_answers=vote_entropy,
    count_answers=lambda options: options.committee_size,
    needs_committee=True,
)
