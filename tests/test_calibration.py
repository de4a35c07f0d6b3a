"""Calibration of confidences, and the filter by confidence."""

import numpy as np
import pytest

from answer_types import get_type
from bridgekd.recipe import ConfidenceOptions
from bridgekd.records import Example, Rationale
from bridgekd.stages.check_rationales import (
    calibrate_confidence,
    calibrate_rationales,
    filter_by_agreement,
)
from bridgekd.stats.calibration import compute_calibration, select_confident


def test_calibrated_confidences_have_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    calibration = compute_calibration(confidence, rng.random(200_000) < confidence)
    assert calibration.ece < 0.01
    assert calibration.auroc == pytest.approx(5 / 6, abs=0.01)  # uniform and calibrated
    assert [size for *_, size in calibration.bins] == pytest.approx([20_000] * 10, rel=0.05)


def test_overconfidence_is_the_calibration_error():
    correct = np.arange(1000) % 2 == 0
    calibration = compute_calibration(np.full(1000, 0.9), correct)
    assert calibration.ece == pytest.approx(0.4)
    assert (calibration.auroc, calibration.bins) == (0.5, ((pytest.approx(0.9), 0.5, 1000),))


def test_auroc_is_1_for_perfect_order_and_none_for_one_class():
    assert (
        compute_calibration(np.array([0.1, 0.2, 0.9]), np.array([False, False, True])).auroc == 1.0
    )
    assert compute_calibration(np.array([0.1, 1.0]), np.array([True, True])).auroc is None


def test_filter_keeps_by_threshold_or_by_number_with_ties_in_order():
    confidence = np.array([0.4, 0.9, 0.4, 0.5])
    assert select_confident(confidence, threshold=0.5).tolist() == [False, True, False, True]
    assert select_confident(confidence, threshold=0.5, n_kept=3).tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_rationales_without_majority_are_dropped_with_reason():
    examples = [Example(id, "Who?", "Ann") for id in "abc"]
    rows = [Rationale(id, "So.", "ann", "assistant", True) for id in "abc"]
    samples = [["ann", "ann", "bob"], ["ann", "bob", "bob"], ["", "", "ann"]]
    kept = filter_by_agreement(rows, samples)
    calibration = calibrate_rationales(kept, examples, get_type("text"))
    assert [r.kept for r in kept] == [True, False, False]
    assert kept[1].reason == "inconsistent: 33% of 3 samples agree"
    assert [r.confidence for r in kept] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert calibration.n == 3


def test_without_gold_answers_there_is_no_calibration():
    assert calibrate_confidence([0.5], ["ann"], [Example("a", "Who?")], get_type("text")) is None


def test_default_confidence_threshold_is_one_half():
    assert (
        ConfidenceOptions().threshold,
        ConfidenceOptions(keep_fraction="80%").keep_fraction,
    ) == (0.5, "80%")
