"""Intervals over seeds and questions: several trainings of a method on the same test questions.

The one idea: seeds and questions are crossed random effects, so a two-way analysis of variance
gives the variance of the mean. Answers of different seeds to one question are not independent. A
bootstrap over few seeds is too wide if seeds do not differ and too narrow if they do:
`benchmarks/intervals.py` measures the coverage of each kind of interval.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr, stdtrit  # many times as fast as scipy.stats

from bridgekd.stats.intervals import mcnemar_test, wilson_interval

QUANTILE = 0.975
_MAX_DOUBLINGS = 60
_ZERO_VARIANCE = 1e-12  # a smaller variance is a rounding error


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference of two arms with its 95 % interval, and the two-sided p-value of `test`."""

    mean: float
    low: float
    high: float
    p: float
    test: str


def compute_variance_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Return (variance, degrees of freedom) of the mean of `values` [seeds, questions].

    Var = (MS_seeds + max(MS_questions - MS_rest, 0)) / (seeds * questions), as for readers and
    cases in radiology; degrees of freedom by Satterthwaite over the two terms (after Hillis 2007,
    doi:10.1002/sim.2532). One seed gives only the variance between questions.
    """
    n_seeds, n_questions = values.shape
    if n_questions < 2:
        return 0.0, 1.0
    mean = values.mean()
    by_question = values.mean(axis=0)
    ms_questions = n_seeds * float(((by_question - mean) ** 2).sum()) / (n_questions - 1)
    if n_seeds == 1:
        return ms_questions / n_questions, n_questions - 1.0
    by_seed = values.mean(axis=1, keepdims=True)
    ms_seeds = n_questions * float(((by_seed - mean) ** 2).sum()) / (n_seeds - 1)
    rest = float(((values - by_seed - by_question + mean) ** 2).sum())
    common = max(ms_questions - rest / ((n_seeds - 1) * (n_questions - 1)), 0.0)
    total = ms_seeds + common
    if total <= 0:
        return 0.0, n_questions - 1.0
    freedom = total**2 / (ms_seeds**2 / (n_seeds - 1) + common**2 / (n_questions - 1))
    return total / (n_seeds * n_questions), float(freedom)


def estimate_mean(values: np.ndarray) -> Estimate:
    """Return the mean of any `values` [seeds, questions] with Student's interval.

    >>> estimate_mean(np.array([[1.0, 2.0, 3.0]])).mean
    2.0
    """
    variance, freedom = compute_variance_of_mean(values)
    half = float(stdtrit(freedom, QUANTILE)) * variance**0.5
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def estimate_proportion(right: np.ndarray) -> Estimate:
    """Return the mean of `right` [seeds, questions], which are 0 or 1, with an interval in [0, 1].

    Wilson's interval. Over several seeds its number of answers is the one that would have this
    variance (the design effect of a survey), and its quantile is Student's.
    """
    n_seeds, n_questions = right.shape
    mean = float(right.mean()) if right.size else 0.0
    if n_seeds == 1 or n_questions == 0:
        return Estimate(mean, *wilson_interval(int(right.sum()), n_questions))
    variance, freedom = compute_variance_of_mean(right)
    n = mean * (1 - mean) / variance if variance > 0 else float(n_questions)
    n, z = min(n, float(right.size)), float(stdtrit(freedom, QUANTILE))
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (mean * (1 - mean) / n + z**2 / (4 * n**2)) ** 0.5
    return Estimate(mean, max(0.0, middle - half), min(1.0, middle + half))


def estimate_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return `second` minus `first`, each 0 or 1 [seeds, questions]; one with a single row is
    compared with every seed of the other.

    One seed, or seeds that all agree: McNemar's exact test and the interval of Bonett and Price
    (2012). Several: the crossed interval and its t-test.
    """
    gained = np.subtract(second, first, dtype=float)
    variance, freedom = compute_variance_of_mean(gained)
    mean = float(gained.mean()) if gained.size else 0.0
    if len(gained) == 1 or variance == 0:
        low, high = _bonett_price_interval(gained[0])
        one, other = (np.broadcast_to(a, gained.shape)[0] > 0.5 for a in (first, second))
        return Difference(mean, low, high, mcnemar_test(one.tolist(), other.tolist()), "McNemar")
    error = variance**0.5
    half = float(stdtrit(freedom, QUANTILE)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, "t over seeds and questions")


def estimate_ratio(top: np.ndarray, bottom: np.ndarray) -> Estimate | None:
    """Return mean(top) / mean(bottom), both [seeds, questions], with Fieller's interval: every
    ratio r for which top - r * bottom does not differ from 0.

    None if the interval of the bottom contains 0, if the interval has no end, or if the variance is
    0: the top does not vary, or it is a multiple of the bottom under every seed.
    """
    below = estimate_mean(bottom)
    if below.low <= 0 <= below.high or compute_variance_of_mean(top)[0] == 0:
        return None
    ratio = float(top.mean()) / below.mean
    if compute_variance_of_mean(top - ratio * bottom)[0] < _ZERO_VARIANCE:
        return None
    low, high = (_find_ratio_bound(top, bottom, ratio, direction) for direction in (-1.0, 1.0))
    return Estimate(ratio, low, high) if np.isfinite([low, high]).all() else None


def _find_ratio_bound(top: np.ndarray, bottom: np.ndarray, ratio: float, direction: float) -> float:
    """The first ratio from `ratio` in `direction` that differs."""

    def beyond(step: float) -> float:
        rest = top - (ratio + direction * step) * bottom
        variance, freedom = compute_variance_of_mean(rest)
        return float(abs(rest.mean()) - stdtrit(freedom, QUANTILE) * variance**0.5)

    step = 0.01
    for _ in range(_MAX_DOUBLINGS):
        if beyond(step) > 0:
            return ratio + direction * float(brentq(beyond, 0.0, step))
        step *= 2
    return direction * float("inf")


def _bonett_price_interval(gained: np.ndarray) -> tuple[float, float]:
    """For paired answers of one run, `gained` in {-1, 0, 1}; its width is never 0."""
    n = len(gained) + 2
    up, down = ((int((gained == sign).sum()) + 1) / n for sign in (1, -1))
    half = float(ndtri(QUANTILE)) * ((up + down - (up - down) ** 2) / n) ** 0.5
    return max(-1.0, up - down - half), min(1.0, up - down + half)
