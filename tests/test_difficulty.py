"""The formulas of the measures of difficulty."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.selection.difficulty.disagreement import vote_entropy
from bridgekd.selection.difficulty.entropy import choice_entropy
from bridgekd.selection.difficulty.learnability import compute_learnability
from bridgekd.selection.difficulty.margin import choice_margin
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct
from bridgekd.selection.difficulty.pass_rate import compute_failure_rate
from bridgekd.selection.difficulty.reducible_loss import average_by_stratum
from bridgekd.selection.quotas import choose_strata


def test_unreadable_answers_are_one_answer():
    assert count_distinct([]) == 0
    assert count_distinct(["7", "7", "7"]) == 1
    assert count_distinct(["7", "", "8", ""]) == 3


def test_a_committee_that_agrees_has_entropy_0_and_one_of_k_opinions_1():
    assert vote_entropy([]) == vote_entropy(["a"]) == vote_entropy(["a", "a", "a"]) == 0
    assert vote_entropy(["a", "b", "c", ""]) == 1
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(4)
    assert vote_entropy(["a", "b", "a", "c"]) == pytest.approx(expected)


def test_equal_choices_are_hardest_and_one_choice_alone_is_certain():
    assert choice_entropy(np.log([0.5, 0.5])) == pytest.approx(1)
    assert choice_margin(np.log([0.5, 0.5])) == pytest.approx(1)
    assert choice_entropy(np.array([-1.0])) == choice_margin(np.array([-1.0])) == 0
    p = np.array([0.1, 0.6, 0.3])
    assert choice_margin(np.log(p)) == pytest.approx(0.7)
    assert choice_entropy(np.log(p) - 3) == pytest.approx(-(p * np.log(p)).sum() / np.log(3))


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=8).map(np.array))
def test_measures_over_choices_are_in_0_to_1(log_likelihoods):
    for formula in (choice_entropy, choice_margin):
        assert -1e-12 <= formula(log_likelihoods) <= 1 + 1e-12


def test_a_question_is_most_learnable_if_half_of_its_samples_are_right():
    rates = [k / 4 for k in range(5)]
    assert [compute_learnability(p) for p in rates] == [0, 0.75, 1, 0.75, 0]
    assert [compute_failure_rate(p) for p in rates] == [1, 0.75, 0.5, 0.25, 0]


def test_reduction_is_the_mean_of_the_stratum():
    reduction = average_by_stratum(np.array([0.5, -1.0, 1.5, -2.0]), np.array([0, 2, 0, 2]))
    assert reduction.tolist() == [1, -1.5, 1, -1.5]


def test_strata_are_domains_and_without_domains_clusters():
    embeddings = np.repeat(np.eye(4, dtype=np.float32), 60, axis=0)
    assert choose_strata(["b", "a"] * 120, embeddings, 0).tolist() == [1, 0] * 120
    clusters = choose_strata([""] * 240, embeddings, 0)
    assert len(set(clusters)) == 2
    assert all(len(set(part)) == 1 for part in clusters.reshape(4, 60))
    assert set(choose_strata([""] * 240, np.empty((240, 0)), 0)) == {0}
