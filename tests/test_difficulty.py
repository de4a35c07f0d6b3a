"""How hard, from options and from answers that do or do not agree."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.core.difficulty import (
    above_answer,
    n_distinct,
    option_entropy,
    option_margin,
    rank_normalise,
    vote_entropy,
)
from bridgekd.errors import BadInput

ANSWERS = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=12)
LOG_P = st.lists(st.floats(-50, 0), min_size=1, max_size=8).map(np.array)


def test_distinct_answers_are_counted_and_all_unreadable_ones_are_one():
    assert n_distinct([]) == 0
    assert n_distinct(["7", "7", "7"]) == 1
    assert n_distinct(["7", "", "8", ""]) == 3


def test_a_committee_of_one_mind_has_entropy_0_and_one_of_k_minds_1():
    assert vote_entropy([]) == vote_entropy(["a"]) == vote_entropy(["a", "a", "a"]) == 0
    assert vote_entropy(["a", "b", "c", ""]) == 1
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(4)
    assert vote_entropy(["a", "b", "a", "c"]) == pytest.approx(expected)
    assert vote_entropy(["", "", "a", "a"]) == pytest.approx(0.5)


@given(ANSWERS)
def test_disagreement_is_in_0_to_1_and_knows_no_order(answers):
    assert 0 <= vote_entropy(answers) <= 1
    assert vote_entropy(answers[::-1]) == pytest.approx(vote_entropy(answers))
    assert (vote_entropy(answers) > 0) == (n_distinct(answers) > 1)


def test_options_alike_are_hardest_and_a_lone_option_is_certain():
    assert option_entropy(np.log([0.5, 0.5])) == pytest.approx(1)
    assert option_margin(np.log([0.5, 0.5])) == pytest.approx(1)
    assert option_entropy(np.array([-1.0])) == option_margin(np.array([-1.0])) == 0
    assert option_margin(np.log([0.1, 0.6, 0.3])) == pytest.approx(0.7)
    p = np.array([0.1, 0.6, 0.3])
    assert option_entropy(np.log(p) - 3) == pytest.approx(-(p * np.log(p)).sum() / np.log(3))


@given(LOG_P, st.randoms())
def test_options_measures_are_in_0_to_1_and_know_no_order(log_p, random):
    shuffled = log_p.copy()
    random.shuffle(shuffled)
    for measure in (option_entropy, option_margin):
        assert -1e-12 <= measure(log_p) <= 1 + 1e-12
        assert measure(shuffled) == pytest.approx(measure(log_p), abs=1e-12)


def test_what_an_answer_costs_everywhere_is_no_difficulty_of_a_question():
    rng = np.random.default_rng(0)
    words = np.array(["granted", "denied", "settled", "barred"] * 200)
    planted = rng.exponential(1.0, len(words))
    dear = np.where(words == "settled", 8.0, 0.0)  # a word that the model seldom says
    first, second = (
        set(np.argsort(-d)[:100].tolist()) for d in (planted, above_answer(planted + dear, words))
    )
    assert len(first & second) > 85
    assert set(words[np.argsort(-(planted + dear))[:100]]) == {"settled"}


def test_answers_that_stand_once_keep_the_order_of_their_losses():
    losses = np.array([3.0, 1.0, 2.0, 5.0])
    found = above_answer(losses, ["7", "8", "9", "10"])
    assert found.argsort().tolist() == losses.argsort().tolist()
    assert found.mean() == pytest.approx(0)


def test_a_loss_that_is_no_number_is_left_for_the_row_to_be_named():
    losses = np.array([1.0, np.nan, 2.0])
    with pytest.raises(BadInput, match="row 1 of the pool"):
        rank_normalise(above_answer(losses, ["7", "7", "8"]))
