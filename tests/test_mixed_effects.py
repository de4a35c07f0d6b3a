"""Intervals over seeds and questions against planted truths, 1,000 repetitions each."""

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
    """Right or wrong [methods, seeds, questions]: seeds with skills of their own, questions that
    are hard (`hard` [questions]) for all.
    """
    own = rng.normal(0, sd, size=(n_methods, n_seeds, 1))
    chance = np.clip(np.reshape(skill, (-1, 1, 1)) + own + hard, 0, 1)
    return (rng.random((n_methods, n_seeds, len(hard))) < chance).astype(float)


def hardness(rng, n=300):
    return rng.uniform(-0.3, 0.3, size=n)  # of mean 0, and no chance is clipped


def within(n_held, share=0.95, *, slack=0.0):
    """Whether so many of N are what `share` means, less `slack`, but for one in 1,000."""
    return binom.ppf(5e-4, N, share - slack) <= n_held <= binom.ppf(1 - 5e-4, N, share + slack)


@pytest.mark.parametrize(("n_seeds", "sd"), [(3, 0.02), (5, 0.0), (5, 0.03), (8, 0.03)])
def test_the_interval_of_an_accuracy_holds_the_truth_95_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(N):
        (right,) = answers(rng, [0.5], n_seeds, sd=sd, hard=hardness(rng))
        told = estimate_proportion(right)
        held += told.low <= 0.5 <= told.high
    assert within(held, slack=0.01), held


@pytest.mark.parametrize(("n_seeds", "sd"), [(1, 0.0), (3, 0.02), (5, 0.0), (5, 0.03)])
def test_the_interval_of_a_difference_holds_the_truth_95_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(N):
        told = estimate_difference(
            *answers(rng, [0.45, 0.5], n_seeds, sd=sd, hard=hardness(rng), n_methods=2)
        )
        held += told.low <= 0.05 <= told.high
    assert within(held, slack=0.01), held


@pytest.mark.parametrize(("n_seeds", "sd"), [(1, 0.0), (3, 0.03), (5, 0.0), (5, 0.03)])
def test_equal_arms_are_called_different_at_most_5_times_in_100(n_seeds, sd):
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(N):
        two = answers(rng, [0.5, 0.5], n_seeds, sd=sd, hard=hardness(rng), n_methods=2)
        called += estimate_difference(*two).p < 0.05
    assert called <= binom.ppf(1 - 5e-4, N, 0.06), called


def test_a_planted_difference_is_found_and_many_seeds_taken_for_one_would_invent_others():
    rng = np.random.default_rng(4)
    found = invented = 0
    for _ in range(N):
        hard = hardness(rng)
        one, other, equal = answers(rng, [0.5, 0.6, 0.5], 5, sd=0.03, hard=hard, n_methods=3)
        found += estimate_difference(one, other).p < 0.05
        pooled = (equal - one).reshape(1, -1)  # as if 5 x 300 answers were independent
        variance, _ = compute_variance_of_mean(pooled)
        invented += abs(pooled.mean()) > 1.96 * variance**0.5
    assert found > 0.8 * N
    assert invented > 0.15 * N  # three times as often as said: what this module is there to avoid


def test_of_ten_equal_arms_one_is_called_different_in_at_most_5_comparisons_of_100():
    rng = np.random.default_rng(5)
    adjusted = raw = 0
    for _ in range(N):
        arms = answers(rng, [0.5] * 11, 5, sd=0.03, hard=hardness(rng, 60), n_methods=11)
        p = [estimate_difference(arms[0], arm).p for arm in arms[1:]]
        raw += min(p) < 0.05
        adjusted += min(holm_correction(p)) < 0.05
    assert adjusted <= binom.ppf(1 - 5e-4, N, 0.05)
    assert raw > 0.15 * N


def test_the_interval_of_a_ratio_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(N):
        base, arm, teacher = answers(
            rng, [0.3, 0.5, 0.7], 5, sd=0.03, hard=hardness(rng), n_methods=3
        )
        told = estimate_ratio(arm - base, teacher[:1] - base)
        held += told is not None and told.low <= 0.5 <= told.high
    assert within(held, slack=0.015), held


def test_a_gap_that_may_be_none_has_no_share():
    rng = np.random.default_rng(0)
    (base,) = answers(rng, [0.5], 5, sd=0.0, hard=hardness(rng))
    assert estimate_ratio(base, base - base[:, ::-1]) is None


def test_a_ratio_that_no_seed_disputes_has_no_interval_of_width_0():
    """Exactly the same ratio under both seeds, with the bottom's question noise of one seed."""
    base = np.zeros((2, 20))
    base[:, :6] = 1
    arm, teacher = base.copy(), np.zeros((1, 20))
    arm[:, 6:12] = 1
    teacher[:, 3:20] = 1
    found = estimate_ratio(arm - base, teacher - base)
    assert found is None or found.low < found.mean < found.high
    once = np.array([[1.0] * 15 + [0.0] * 5])
    assert estimate_ratio(once, once) is None


def test_one_seed_is_wilson_s_interval():
    right = np.array([[1.0] * 10 + [0.0] * 10])
    told = estimate_proportion(right)
    assert (told.low, told.high) == wilson_interval(10, 20)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_seeds_that_all_agree_still_leave_the_questions_doubt(value):
    told = estimate_proportion(np.full((5, 20), value))
    assert (told.low, told.high) == pytest.approx(
        (0.0, 0.179) if value == 0 else (0.821, 1.0), abs=1e-3
    )
    same = estimate_difference(np.full((5, 20), value), np.full((5, 20), value))
    assert same.low < 0 < same.high and same.p == 1.0


def test_an_untouched_model_is_as_sure_as_its_questions_however_often_it_is_asked():
    rng = np.random.default_rng(0)
    once = (rng.random((1, 400)) < 0.4).astype(float)
    five = estimate_proportion(np.repeat(once, 5, axis=0))
    assert (five.low, five.high) == pytest.approx(wilson_interval(int(once.sum()), 400), abs=2e-3)


def test_holm_matches_the_worked_example():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([]) == []


def test_a_mean_of_any_figure_has_an_interval():
    told = estimate_mean(np.random.default_rng(0).normal(10, 2, size=(5, 200)))
    assert told.low < 10 < told.high < told.low + 1
