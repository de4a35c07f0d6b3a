"""Intervals for known true values."""

import numpy as np
import pytest

from bridgekd.stats.intervals import mcnemar_test, wilson_interval


def test_wilson_matches_the_published_example():
    low, high = wilson_interval(10, 20)  # Brown, Cai, DasGupta 2001: 0.299 to 0.701
    assert (low, high) == pytest.approx((0.299, 0.701), abs=1e-3)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("true_value", [0.1, 0.5, 0.9])
def test_wilson_interval_covers_true_value_95_times_in_100(true_value):
    hits = np.random.default_rng(0).binomial(200, true_value, size=1000)
    n_covered = sum(
        low <= true_value <= high for low, high in (wilson_interval(int(k), 200) for k in hits)
    )
    assert 930 <= n_covered <= 975


def test_mcnemar_counts_only_the_questions_on_which_two_models_differ():
    assert mcnemar_test([True] * 50, [True] * 50) == 1.0
    assert mcnemar_test([True] * 10, [False] * 10) == pytest.approx(2 * 0.5**10)


def test_mcnemar_finds_difference_of_equal_models_at_most_5_times_in_100():
    rng = np.random.default_rng(0)
    n_significant = 0
    for _ in range(1000):
        first, second = rng.random(100) < 0.6, rng.random(100) < 0.6
        n_significant += mcnemar_test(first.tolist(), second.tolist()) < 0.05
    assert n_significant <= 55
