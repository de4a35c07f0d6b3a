"""How a model answers: the length of its texts, and texts that are not a complete answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.stats.metrics import AnswerMetrics, MeanEstimate
from bridgekd.stats.mixed_effects import Estimate, estimate_mean, estimate_proportion


@dataclass(frozen=True, slots=True)
class AnswerTraits:
    """What the text of one answer is like, besides its correctness."""

    n_tokens: int
    is_cut_off: bool = False
    has_answer: bool = True
    is_repetitive: bool = False


def summarize_answers(
    rows: Sequence[Mapping[str, AnswerTraits]], ids: Sequence[str]
) -> AnswerMetrics | None:
    """Return the figures of these questions over all seeds; None if the traits are unknown.

    rows: the traits by question id, one mapping for each seed.
    """
    if not all(rows):
        return None
    traits = [[row[id] for id in ids] for row in rows]

    def estimate_share(values: Sequence[Sequence[bool]]) -> MeanEstimate:
        return make_mean(estimate_proportion(np.array(values, dtype=float)))

    return AnswerMetrics(
        tokens=make_mean(estimate_mean(np.array([[t.n_tokens for t in row] for row in traits]))),
        cut_off=estimate_share([[t.is_cut_off for t in row] for row in traits]),
        without_answer=estimate_share([[not t.has_answer for t in row] for row in traits]),
        repetitive=estimate_share([[t.is_repetitive for t in row] for row in traits]),
    )


def make_mean(estimate: Estimate) -> MeanEstimate:
    """Return an estimate as metrics.json has it."""
    return MeanEstimate(mean=estimate.mean, ci95=estimate.ci95)
