"""Intervals over seeds and questions: several trainings of a method on the same test questions.

The one idea: seeds and questions are crossed random effects, so a two-way analysis of variance
gives the variance of the mean. Answers of different seeds to one question are not independent. A
bootstrap over few seeds is too wide if seeds do not differ and too narrow if they do:
`benchmarks/intervals.py` measures the coverage of each kind of interval.
"""

from dataclasses import dataclass
from math import inf

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

    @property
    def ci95(self) -> tuple[float, float]:
        """The interval as metrics.json has it."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """A mean difference of two arms, and the two-sided p-value of `test`."""

    p: float
    test: str


def compute_variance_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Return variance and degrees of freedom of the mean of `values` [seeds, questions].

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


def estimate_proportion(correct: np.ndarray) -> Estimate:
    """Return the mean of `correct` [seeds, questions], 0 or 1, with an interval in [0, 1].

    Wilson's interval. Over several seeds it uses the number of answers that would have this
    variance (the design effect of a survey) and the quantile of Student's t.
    """
    n_seeds, n_questions = correct.shape
    if n_seeds == 1 or n_questions == 0:
        mean = float(correct.mean()) if correct.size else 0.0
        return Estimate(mean, *wilson_interval(int(correct.sum()), n_questions))
    return estimate_fraction(correct, max_answers=correct.size)


def estimate_fraction(values: np.ndarray, max_answers: float = inf) -> Estimate:
    """Return the mean of fractions [seeds, questions] in [0, 1], with an interval in [0, 1].

    As `estimate_proportion` over several seeds, also for one seed. `max_answers` limits the number
    of answers that would have the variance: fractions may vary less than 0 and 1 do.
    """
    mean, n_questions = float(values.mean()), values.shape[1]
    variance, freedom = compute_variance_of_mean(values)
    n = mean * (1 - mean) / variance if variance > 0 else float(n_questions)
    n, z = min(n, float(max_answers)), float(stdtrit(freedom, QUANTILE))
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (mean * (1 - mean) / n + z**2 / (4 * n**2)) ** 0.5
    return Estimate(mean, max(0.0, middle - half), min(1.0, middle + half))


def estimate_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return `second` minus `first`, each 0 or 1 [seeds, questions].

    An arm with a single row is compared with every seed of the other. One seed, or seeds that all
    agree: McNemar's exact test and the interval of Bonett and Price (2012). Several seeds: the
    interval over seeds and questions, and its t-test.
    """
    gained = np.subtract(second, first, dtype=float)
    variance, freedom = compute_variance_of_mean(gained)
    mean = float(gained.mean()) if gained.size else 0.0
    if len(gained) == 1 or variance == 0:
        rows = [np.broadcast_to(arm, gained.shape)[0] > 0.5 for arm in (first, second)]
        p = mcnemar_test(*(row.tolist() for row in rows))
        return Difference(mean, *_bonett_price_interval(gained[0]), p, "McNemar")
    error = variance**0.5
    half = float(stdtrit(freedom, QUANTILE)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, "t over seeds and questions")


def estimate_ratio(numerator: np.ndarray, denominator: np.ndarray) -> Estimate | None:
    """Return mean(numerator) / mean(denominator), both [seeds, questions].

    Fieller's interval: every ratio r for which numerator - r * denominator does not differ from 0.
    None if the interval of the denominator contains 0, if the interval is unbounded, or if the
    variance is 0: the numerator is constant, or a multiple of the denominator for every seed.
    """
    base = estimate_mean(denominator)
    if base.low <= 0 <= base.high or compute_variance_of_mean(numerator)[0] == 0:
        return None
    ratio = float(numerator.mean()) / base.mean
    if compute_variance_of_mean(numerator - ratio * denominator)[0] < _ZERO_VARIANCE:
        return None
    low, high = (_find_ratio_bound(numerator, denominator, ratio, sign) for sign in (-1.0, 1.0))
    return Estimate(ratio, low, high) if np.isfinite([low, high]).all() else None


def _find_ratio_bound(
    numerator: np.ndarray, denominator: np.ndarray, ratio: float, sign: float
) -> float:
    """Return the first ratio from `ratio` in the direction `sign` that differs significantly."""

    def compute_excess(step: float) -> float:
        rest = numerator - (ratio + sign * step) * denominator
        variance, freedom = compute_variance_of_mean(rest)
        return float(abs(rest.mean()) - stdtrit(freedom, QUANTILE) * variance**0.5)

    step = 0.01
    for _ in range(_MAX_DOUBLINGS):
        if compute_excess(step) > 0:
            return ratio + sign * float(brentq(compute_excess, 0.0, step))
        step *= 2
    return sign * float("inf")


def _bonett_price_interval(gained: np.ndarray) -> tuple[float, float]:
    """Return the interval for one run, `gained` [questions] in {-1, 0, 1}; its width is never 0."""
    n = len(gained) + 2
    up, down = ((int((gained == sign).sum()) + 1) / n for sign in (1, -1))
    half = float(ndtri(QUANTILE)) * ((up + down - (up - down) ** 2) / n) ** 0.5
    return max(-1.0, up - down - half), min(1.0, up - down + half)
