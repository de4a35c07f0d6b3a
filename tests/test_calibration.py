"""Confidence held against the truth, and what a filter keeps."""

import numpy as np
import pytest

from answer_types import get_type
from bridgekd.recipe import ConfidenceOptions
from bridgekd.records import Example, Rationale
from bridgekd.stages.check_rationales import calibrate_confidence, filter_by_agreement
from bridgekd.stats.calibration import compute_calibration, select_confident


def test_confidences_that_mean_what_they_say_have_no_calibration_error():
    rng = np.random.default_rng(0)
    said = rng.random(200_000)
    found = compute_calibration(said, rng.random(200_000) < said)
    assert found.ece < 0.01
    assert found.auroc == pytest.approx(5 / 6, abs=0.01)  # of a uniform, calibrated confidence
    assert [size for *_, size in found.bins] == pytest.approx([20_000] * 10, rel=0.05)


def test_overconfidence_is_the_calibration_error():
    right = np.arange(1000) % 2 == 0
    found = compute_calibration(np.full(1000, 0.9), right)
    assert found.ece == pytest.approx(0.4)
    assert (found.auroc, found.bins) == (0.5, ((pytest.approx(0.9), 0.5, 1000),))


def test_the_sure_are_at_the_top_and_a_lonely_kind_has_no_auroc():
    assert (
        compute_calibration(np.array([0.1, 0.2, 0.9]), np.array([False, False, True])).auroc == 1.0
    )
    assert compute_calibration(np.array([0.1, 1.0]), np.array([True, True])).auroc is None


def test_a_filter_keeps_by_threshold_or_by_share_with_ties_in_order():
    said = np.array([0.4, 0.9, 0.4, 0.5])
    assert select_confident(said, at_least=0.5).tolist() == [False, True, False, True]
    assert select_confident(said, at_least=0.5, n_kept=3).tolist() == [True, True, False, True]


def test_rationales_whose_answer_no_majority_of_samples_gives_are_dropped_with_a_reason():
    examples = [Example(id, "Who?", "Ann") for id in "abc"]
    rows = [Rationale(id, "So.", "ann", "assistant", True) for id in "abc"]
    samples = [["ann", "ann", "bob"], ["ann", "bob", "bob"], ["", "", "ann"]]
    kept, found = filter_by_agreement(rows, examples, samples, get_type("text"))
    assert [r.kept for r in kept] == [True, False, False]
    assert kept[1].reason == "inconsistent: 33% of 3 samples agree"
    assert [r.confidence for r in kept] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert found.n == 3


def test_without_gold_answers_nothing_is_said_of_calibration():
    assert calibrate_confidence([0.5], ["ann"], [Example("a", "Who?")], get_type("text")) is None


def test_confidence_has_a_threshold_of_a_half_unless_a_share_is_asked_for():
    assert (
        ConfidenceOptions().threshold,
        ConfidenceOptions(keep_fraction="80%").keep_fraction,
    ) == (0.5, "80%")
