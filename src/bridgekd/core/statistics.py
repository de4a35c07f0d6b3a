"""Intervals and tests of one run, and corrections for many; over several seeds see crossed.py."""

from collections.abc import Sequence

from scipy.stats import binomtest


def wilson(n_correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) where nothing was measured."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first: list[bool], second: list[bool]) -> float:
    """Two-sided exact p-value that two models, on the same questions, are equally often right."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: below 0.05 for a share of at most 0.05
    of families in which no hypothesis is false.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = so_far
    return adjusted
