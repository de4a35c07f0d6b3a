"""Intervals and tests of one run, and a correction for many; for several seeds see crossed.py."""

from collections.abc import Sequence

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


def mcnemar_test(first: list[bool], second: list[bool]) -> float:
    """Return the exact two-sided p-value that two models are equally often correct on the same
    questions.

    >>> mcnemar_test([True] * 5, [False] * 5)
    0.0625
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (1979) in the given order: if no hypothesis is false, one of
    them is below 0.05 with a probability of at most 0.05.

    >>> holm_correction([0.01, 0.04])
    [0.02, 0.04]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = so_far
    return adjusted
