"""Intervals against planted truths."""

import numpy as np
import pytest
from scipy.stats import binom

from bridgekd.core.statistics import mcnemar, two_level, wilson


def test_wilson_matches_the_published_example():
    low, high = wilson(10, 20)  # Brown, Cai, DasGupta 2001: 0.299 to 0.701
    assert (low, high) == pytest.approx((0.299, 0.701), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_wilson_holds_the_truth_about_95_times_in_100(share):
    hits = np.random.default_rng(0).binomial(200, share, size=1000)
    held = sum(low <= share <= high for low, high in (wilson(int(k), 200) for k in hits))
    assert 930 <= held <= 975


def test_mcnemar_counts_only_the_questions_on_which_two_models_differ():
    assert mcnemar([True] * 50, [True] * 50) == 1.0
    assert mcnemar([True] * 10, [False] * 10) == pytest.approx(2 * 0.5**10)


def test_mcnemar_calls_equal_models_different_at_most_5_times_in_100():
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(1000):
        first, second = rng.random(100) < 0.6, rng.random(100) < 0.6
        called += mcnemar(first.tolist(), second.tolist()) < 0.05
    assert called <= 55


def test_a_two_level_interval_holds_the_truth_about_as_often_as_it_says():
    """Eight seeds with skills of their own, one set of questions."""
    held = 0
    for trial in range(80):
        rng = np.random.default_rng([3, trial])
        skills, hardness = rng.normal(0, 0.04, size=(8, 1)), rng.normal(0, 0.15, size=(1, 300))
        right = rng.random((8, 300)) < np.clip(0.5 + skills + hardness, 0, 1)
        mean, low, high = two_level(right.astype(float), seed=trial)
        held += low <= 0.5 <= high
        assert low <= mean <= high
    assert held >= binom.ppf(0.001, 80, 0.9)


def test_a_difference_that_every_seed_shows_is_seen():
    rng = np.random.default_rng(0)
    one, other = (rng.random((5, 600)) < p for p in (0.6, 0.5))
    _, low, high = two_level(one.astype(float) - other)
    assert 0 < low < 0.1 < high
