"""The accuracy without reading a question."""

import pytest

from bridgekd.report.headline import build_headline
from bridgekd.stats.chance_baseline import ChanceBaseline, compute_chance_baseline
from report_fixtures import make_arm, some_metrics

NONE = ((), (), (), (), ())


def test_the_most_frequent_answer_is_baseline_without_choices():
    baseline = compute_chance_baseline(["yes", "Yes ", "no", "YES", "maybe"], NONE)
    assert (baseline.accuracy, baseline.rule) == (0.6, "always answering 'yes'")


def test_guessing_is_baseline_if_answers_and_letters_are_balanced():
    choices = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    baseline = compute_chance_baseline(["a", "d", "e", "h"], choices)
    assert (baseline.accuracy, baseline.rule) == (0.5, "guessing among the choices")


def test_most_frequent_correct_letter_is_baseline():
    choices = [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    baseline = compute_chance_baseline(["b", "e", "i"], choices)
    assert (baseline.accuracy, baseline.rule) == (pytest.approx(2 / 3), "always answering B")


def test_the_headline_says_when_an_arm_is_not_above_chance():
    chance = ChanceBaseline(1 / 3, "guessing among the choices")
    low, high = (
        some_metrics({"direct": make_arm("direct", 0.36, end, 0.4)}, chance=chance)
        for end in (0.30, 0.34)
    )
    sentence = "not above chance (33.3 %: guessing among the choices)"
    assert sentence in build_headline(low, "direct")
    assert "chance" not in build_headline(high, "direct")
