"""Intervals and tests for one run, and a correction for several tests.

`mixed_effects.py` has those for several seeds.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest


def wilson_interval(n_correct: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion; (0, 1) for n = 0.

    >>> [round(end, 3) for end in wilson_interval(10, 20)]  # Brown, Cai and DasGupta 2001
    [0.299, 0.701]
    """
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_test(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    first, second: [n], whether each of two models is correct on the same n questions.
    >>> mcnemar_test([True] * 5, [False] * 5)
    0.0625
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979) in the same order.

    If no hypothesis is false, one of them is below 0.05 with a probability of at most 0.05.
    >>> holm_correction([0.01, 0.04])
    [0.02, 0.04]
    """
    p, n = np.array(p_values, dtype=float), len(p_values)
    order, adjusted = np.argsort(p, kind="stable"), np.empty(n)
    adjusted[order] = np.minimum(np.maximum.accumulate((n - np.arange(n)) * p[order]), 1.0)
    return [float(value) for value in adjusted]
