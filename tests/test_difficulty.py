"""The formulas of the measures of difficulty."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.selection.difficulty.disagreement import vote_entropy
from bridgekd.selection.difficulty.entropy import choice_entropy
from bridgekd.selection.difficulty.margin import choice_margin
from bridgekd.selection.difficulty.n_distinct_answers import count_distinct


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
