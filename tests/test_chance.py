"""What can be had without reading a question."""

from dataclasses import replace

import pytest

from bridgekd.core.chance import Chance, chance
from bridgekd.stages.heading import headline
from stories import an_arm, some_metrics

NONE = ((), (), (), (), ())


def test_the_most_frequent_answer_is_the_bar_where_there_are_no_options():
    found = chance(["yes", "Yes ", "no", "YES", "maybe"], NONE)
    assert (found.accuracy, found.rule) == (0.6, "always answering 'yes'")


def test_guessing_is_the_bar_where_answers_and_letters_are_spread():
    options = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    found = chance(["a", "d", "e", "h"], options)
    assert (found.accuracy, found.rule) == (0.5, "guessing among the options")


def test_a_letter_that_is_right_more_often_is_the_bar():
    options = [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    found = chance(["b", "e", "i"], options)
    assert (found.accuracy, found.rule) == (pytest.approx(2 / 3), "always answering B")


def test_the_headline_says_when_an_arm_is_not_above_chance():
    arms = {"direct": an_arm("direct", 0.30, 0.25, 0.36)}
    metrics = some_metrics(chance=Chance(1 / 3, "guessing among the options"))
    assert "not above chance (33.3 %: guessing among the options)" in headline(arms, metrics)
    high = {"direct": replace(arms["direct"], low=0.34)}
    assert "chance" not in headline(high, metrics)
