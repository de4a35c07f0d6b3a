"""pass@k: whether at least one of k sampled answers to a question is correct.

The one idea: accuracy says how surely a model answers, pass@k with a large k what it can answer at
all. An arm that gains accuracy but no pass@k answers more surely and knows no more (arXiv
2505.14216).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from bridgekd.stats.answer_metrics import make_mean
from bridgekd.stats.metrics import PassMetrics
from bridgekd.stats.mixed_effects import estimate_fraction


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """`n_samples` answers of one model to every question: the number of correct ones by id."""

    n_samples: int
    temperature: float
    n_correct: Mapping[str, int]


def estimate_pass_at_k(n: int, n_correct: int, k: int) -> float:
    """Return the unbiased estimate 1 - C(n - c, k) / C(n, k) for n samples, c of them correct.

    It is the share of all sets of k of the n samples with a correct one (Chen et al. 2021, arXiv
    2107.03374), and 1 if fewer than k samples are wrong. Raises ValueError unless 1 <= k <= n.
    >>> [estimate_pass_at_k(4, 1, k) for k in (1, 2, 4)]
    [0.25, 0.5, 1.0]
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, not {n}")
    return 1 - comb(n - n_correct, k) / comb(n, k)


def choose_ks(n: int) -> list[int]:
    """Return 1, 4, 16, ... below n, and n.

    >>> [choose_ks(n) for n in (1, 8, 16)]
    [[1], [1, 4, 8], [1, 4, 16]]
    """
    return [*(4**e for e in range(n.bit_length()) if 4**e < n), n]


def summarize_samples(
    rows: Sequence[SampleCounts | None], ids: Sequence[str]
) -> PassMetrics | None:
    """Return pass@k of these questions over all seeds; None if a model was not sampled.

    rows: one for each seed. Intervals are over seeds and questions.
    """
    counts = [row for row in rows if row is not None]
    if not counts or len(counts) < len(rows):
        return None
    n = counts[0].n_samples

    def compute_matrix(k: int) -> np.ndarray:
        return np.array([[estimate_pass_at_k(n, row.n_correct[id], k) for id in ids]
                         for row in counts])  # fmt: skip

    return PassMetrics(
        n_samples=n,
        temperature=counts[0].temperature,
        pass_at_k={k: make_mean(estimate_fraction(compute_matrix(k))) for k in choose_ks(n)},
    )
