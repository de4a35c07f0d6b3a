"""The share of training rationales that a student completes word for word, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.stats.answer_metrics import make_mean
from bridgekd.stats.intervals import wilson_interval
from bridgekd.stats.metrics import MeanEstimate, MemorizationMetrics
from bridgekd.stats.mixed_effects import estimate_fraction


@dataclass(frozen=True, slots=True)
class MemorizedCounts:
    """Of `n_rationales`, those that a student completes and those that its base model does."""

    n_rationales: int
    n_memorized: int
    n_base: int


def summarize_memorization(
    rows: Sequence[MemorizedCounts | None],
) -> MemorizationMetrics | None:
    """Return the shares over all seeds; None without rationales. One seed has Wilson's interval."""
    counts = [row for row in rows if row is not None and row.n_rationales]
    if not counts or len(counts) < len(rows):
        return None

    def estimate(count: Callable[[MemorizedCounts], int]) -> MeanEstimate:
        if len(counts) == 1:
            n, (row,) = counts[0].n_rationales, counts
            return MeanEstimate(mean=count(row) / n, ci95=wilson_interval(count(row), n))
        shares = np.array([[count(row) / row.n_rationales for row in counts]])
        return make_mean(estimate_fraction(shares))

    return MemorizationMetrics(
        n_rationales=sum(row.n_rationales for row in counts),
        student=estimate(lambda row: row.n_memorized),
        base_model=estimate(lambda row: row.n_base),
    )
