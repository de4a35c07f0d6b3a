"""Intervals over seeds and questions for known true values, 1,000 repetitions each."""

import numpy as np
import pytest
from scipy.stats import binom

from bridgekd.stats.intervals import holm_correction, wilson_interval
from bridgekd.stats.mixed_effects import (
    compute_variance_of_mean,
    estimate_difference,
    estimate_mean,
    estimate_proportion,
    estimate_ratio,
)

N = 1000


def answers(rng, skill, n_seeds, *, sd, hard, n_methods=1):
    """Return correctness [methods, seeds, questions]; the skill of every seed differs, and `hard`
    [questions] applies to all.
    """
    own = rng.normal(0, sd, size=(n_methods, n_seeds, 1))
    chance = np.clip(np.reshape(skill, (-1, 1, 1)) + own + hard, 0, 1)
    return (rng.random((n_methods, n_seeds, len(hard))) < chance).astype(float)


def hardness(rng, n=300):
    return rng.uniform(-0.3, 0.3, size=n)  # of mean 0, and no chance is clipped


def within(n_covered, rate=0.95, *, slack=0.0):
    """Return whether this number of N agrees with `rate` up to `slack`, except once in 1,000."""
    return binom.ppf(5e-4, N, rate - slack) <= n_covered <= binom.ppf(1 - 5e-4, N, rate + slack)


@pytest.mark.parametrize(("n_seeds", "sd"), [(3, 0.02), (5, 0.0), (5, 0.03), (8, 0.03)])
def test_interval_of_accuracy_covers_true_value_95_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(1)
    n_covered = 0
    for _ in range(N):
        (correct,) = answers(rng, [0.5], n_seeds, sd=sd, hard=hardness(rng))
        estimate = estimate_proportion(correct)
        n_covered += estimate.low <= 0.5 <= estimate.high
    assert within(n_covered, slack=0.01), n_covered


@pytest.mark.parametrize(("n_seeds", "sd"), [(1, 0.0), (3, 0.02), (5, 0.0), (5, 0.03)])
def test_interval_of_difference_covers_true_value_95_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(2)
    n_covered = 0
    for _ in range(N):
        estimate = estimate_difference(
            *answers(rng, [0.45, 0.5], n_seeds, sd=sd, hard=hardness(rng), n_methods=2)
        )
        n_covered += estimate.low <= 0.05 <= estimate.high
    assert within(n_covered, slack=0.01), n_covered


@pytest.mark.parametrize(("n_seeds", "sd"), [(1, 0.0), (3, 0.03), (5, 0.0), (5, 0.03)])
def test_equal_arms_differ_significantly_at_most_5_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(3)
    n_significant = 0
    for _ in range(N):
        two = answers(rng, [0.5, 0.5], n_seeds, sd=sd, hard=hardness(rng), n_methods=2)
        n_significant += estimate_difference(*two).p < 0.05
    assert n_significant <= binom.ppf(1 - 5e-4, N, 0.06), n_significant


def test_true_difference_is_detected_and_pooled_seeds_would_report_false_ones():
    rng = np.random.default_rng(4)
    n_detected = n_false = 0
    for _ in range(N):
        hard = hardness(rng)
        first, better, equal = answers(rng, [0.5, 0.6, 0.5], 5, sd=0.03, hard=hard, n_methods=3)
        n_detected += estimate_difference(first, better).p < 0.05
        pooled = (equal - first).reshape(1, -1)  # as if 5 x 300 answers were independent
        variance, _ = compute_variance_of_mean(pooled)
        n_false += abs(pooled.mean()) > 1.96 * variance**0.5
    assert n_detected > 0.8 * N
    assert n_false > 0.15 * N  # three times the nominal rate, which this module avoids


def test_one_of_ten_equal_arms_differs_significantly_in_at_most_5_of_100_comparisons():
    rng = np.random.default_rng(5)
    adjusted = raw = 0
    for _ in range(N):
        arms = answers(rng, [0.5] * 11, 5, sd=0.03, hard=hardness(rng, 60), n_methods=11)
        p = [estimate_difference(arms[0], arm).p for arm in arms[1:]]
        raw += min(p) < 0.05
        adjusted += min(holm_correction(p)) < 0.05
    assert adjusted <= binom.ppf(1 - 5e-4, N, 0.05)
    assert raw > 0.15 * N


def test_interval_of_ratio_covers_true_value_95_times_in_100():
    rng = np.random.default_rng(6)
    n_covered = 0
    for _ in range(N):
        base, arm, teacher = answers(
            rng, [0.3, 0.5, 0.7], 5, sd=0.03, hard=hardness(rng), n_methods=3
        )
        estimate = estimate_ratio(arm - base, teacher[:1] - base)
        n_covered += estimate is not None and estimate.low <= 0.5 <= estimate.high
    assert within(n_covered, slack=0.015), n_covered


def test_gap_that_may_be_0_has_no_ratio():
    rng = np.random.default_rng(0)
    (base,) = answers(rng, [0.5], 5, sd=0.0, hard=hardness(rng))
    assert estimate_ratio(base, base - base[:, ::-1]) is None


def test_equal_ratio_of_all_seeds_has_no_interval_of_width_0():
    """Both seeds have the same ratio; the denominator has the noise of one seed."""
    base = np.zeros((2, 20))
    base[:, :6] = 1
    arm, teacher = base.copy(), np.zeros((1, 20))
    arm[:, 6:12] = 1
    teacher[:, 3:20] = 1
    estimate = estimate_ratio(arm - base, teacher - base)
    assert estimate is None or estimate.low < estimate.mean < estimate.high
    once = np.array([[1.0] * 15 + [0.0] * 5])
    assert estimate_ratio(once, once) is None


def test_one_seed_is_wilson_s_interval():
    correct = np.array([[1.0] * 10 + [0.0] * 10])
    estimate = estimate_proportion(correct)
    assert (estimate.low, estimate.high) == wilson_interval(10, 20)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_seeds_that_agree_keep_uncertainty_of_questions(value):
    estimate = estimate_proportion(np.full((5, 20), value))
    assert (estimate.low, estimate.high) == pytest.approx(
        (0.0, 0.179) if value == 0 else (0.821, 1.0), abs=1e-3
    )
    same = estimate_difference(np.full((5, 20), value), np.full((5, 20), value))
    assert same.low < 0 < same.high and same.p == 1.0


def test_repeated_evaluation_of_one_model_keeps_its_interval():
    rng = np.random.default_rng(0)
    once = (rng.random((1, 400)) < 0.4).astype(float)
    five = estimate_proportion(np.repeat(once, 5, axis=0))
    assert (five.low, five.high) == pytest.approx(wilson_interval(int(once.sum()), 400), abs=2e-3)


def test_holm_matches_the_worked_example():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([]) == []


def test_mean_of_any_values_has_interval():
    estimate = estimate_mean(np.random.default_rng(0).normal(10, 2, size=(5, 200)))
    assert estimate.low < 10 < estimate.high < estimate.low + 1
