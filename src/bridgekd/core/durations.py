"""How long local work takes: by rows a second that were measured, else by a count of operations.

The rule of thumb is 6 N operations a token for training and 2 N for reading and writing (N: the
model's parameters). It knows nothing of memory, attention and padding; that is why its ends lie far
apart. Both ends of a sum are the sums of ends: what makes one stage slow makes all slow.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class WorkKind(StrEnum):
    """What kind of work a stage is: the first three take time here, PAID takes money."""

    TRAINING = "training"
    GENERATION = "generation"
    SCORING = "scoring"
    PAID = "paid"
    NONE = "none"


OPERATIONS = {  # a parameter and token; frozen weights need 4
    WorkKind.TRAINING: (4, 6),
    WorkKind.GENERATION: (2, 2),
    WorkKind.SCORING: (2, 2),
}
# The share of a device's peak that is used. Writing goes token by token and waits for memory.
USED = {
    WorkKind.TRAINING: (0.05, 0.5),
    WorkKind.GENERATION: (0.005, 0.2),
    WorkKind.SCORING: (0.05, 0.5),
}
SPREAD = 1.5  # of a measured rate, when rows or the machine's other work differ


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds: a guess between two ends."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Work:
    """`n_rows` of one kind of work, each of so many tokens (at least, at most)."""

    kind: WorkKind
    n_rows: int
    tokens: tuple[float, float]


def by_rates(n_rows: int, rates: Sequence[float]) -> Duration:
    """From rows a second of the same work, measured before."""
    ordered = sorted(rates)
    low, high = n_rows / ordered[-1] / SPREAD, n_rows / ordered[0] * SPREAD
    return Duration(low, n_rows / ordered[len(ordered) // 2], high)


def by_rule(work: Work, n_parameters: int, peak: float) -> Duration:
    """From the operations of a model on a device of `peak` operations a second; the middle is the
    geometric one.
    """
    (few, many), (little, much) = OPERATIONS[work.kind], USED[work.kind]
    shortest, longest = work.tokens
    low = few * n_parameters * work.n_rows * shortest / (much * peak)
    high = many * n_parameters * work.n_rows * longest / (little * peak)
    return Duration(low, math.sqrt(low * high), high)


def added(durations: Iterable[Duration]) -> Duration:
    """One after the other."""
    every = list(durations)
    return Duration(
        sum(d.low for d in every), sum(d.middle for d in every), sum(d.high for d in every)
    )
