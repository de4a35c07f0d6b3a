"""Intervals and tests: no accuracy is shown without one."""

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
