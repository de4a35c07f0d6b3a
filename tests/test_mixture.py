"""The formulas of the domain mixtures, with the values of their papers."""

import numpy as np
import pytest

from bridgekd.selection.difficulty.pass_rate import PassRateOptions
from bridgekd.selection.mixture import GroupEvidence, compute_shares, resample_rows
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.selection.mixtures.failure_rate import FailureRateOptions
from bridgekd.selection.mixtures.gap import GapOptions, update_shares
from bridgekd.selection.quotas import allocate_quotas
from bridgekd.variants import NoOptions


def make_evidence(sizes, **columns):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return GroupEvidence(groups, **columns)


def test_baldistill_moves_from_the_pool_to_equal_quotas():
    """Stage 2 of 5 with N = 100 and c = (70, 20, 8, 2): the paper rounds each quota down."""
    evidence = make_evidence([70, 20, 8, 2], progress=2 / 5)
    shares = compute_shares(MIXTURES.get("toward_even"), evidence, NoOptions())
    assert np.floor(100 * shares + 1e-9).tolist() == [52, 22, 14, 11]
    assert allocate_quotas(10 * evidence.sizes, 100, shares).tolist() == [52, 22, 15, 11]
    first = compute_shares(MIXTURES.get("toward_even"), make_evidence([70, 30]), NoOptions())
    assert first.tolist() == [0.7, 0.3]


def test_ddk_has_the_values_of_its_equations():
    ratio = np.array([1.2, 1.0])
    start = np.exp(ratio) / np.exp(ratio).sum()
    assert start == pytest.approx([0.54983, 0.45017], abs=5e-6)
    assert update_shares(start, ratio, 0.5) == pytest.approx([0.54934, 0.45066], abs=5e-6)
    loss = np.log(ratio).repeat(2)  # a perplexity is exp of a mean loss
    evidence = make_evidence([2, 2], losses=loss + 1, reference_losses=np.ones(4))
    shares = compute_shares(MIXTURES.get("gap"), evidence, GapOptions())
    assert shares == pytest.approx([0.54934, 0.45066], abs=5e-6)


def test_the_gap_never_takes_all_from_a_group():
    evidence = make_evidence([5, 5], losses=np.repeat([900.0, 0], 5), reference_losses=np.zeros(10))
    shares = compute_shares(MIXTURES.get("gap"), evidence, GapOptions(alpha=0.8))
    assert shares == pytest.approx([0.9, 0.1])


def test_failures_are_questions_below_the_threshold():
    rates = np.array([0, 0.25, 0.5, 1, 0.25, 1, 1, 1])
    evidence = make_evidence([4, 4], pass_rates=rates)
    shares = compute_shares(MIXTURES.get("failure_rate"), evidence, FailureRateOptions())
    assert shares == pytest.approx([2 / 3, 1 / 3])


def test_learnable_gives_nothing_to_a_group_that_always_fails_or_never():
    rates = np.array([0.5, 0.5, 0, 1, 0.5, 0.5, 0.5, 0.5])
    evidence = make_evidence([2, 2, 4], pass_rates=rates)
    shares = compute_shares(MIXTURES.get("learnable"), evidence, PassRateOptions())
    assert shares == pytest.approx([1 / 3, 0, 2 / 3])


def test_a_full_group_leaves_its_quota_to_the_others():
    sizes = np.array([3, 50, 50])
    assert allocate_quotas(sizes, 20, np.array([0.5, 0.25, 0.25])).tolist() == [3, 9, 8]
    assert allocate_quotas(sizes, 103, np.array([1.0, 0, 0])).tolist() == [3, 50, 50]
    assert allocate_quotas(sizes, 23, np.array([1.0, 0, 0])).tolist() == [3, 10, 10]


def test_rows_of_a_small_group_repeat_and_of_a_large_one_are_drawn():
    groups = np.array([0, 1, 0, 0, 0, 0, 0, 0, 2, 0])
    shares = np.array([0.4, 0.3, 0.1, 0.2])  # nothing is in group 3, which leaves 2 rows
    rows = resample_rows(groups, shares, 0)
    assert len(rows) == 10
    assert np.bincount(groups[rows]).tolist() == [5, 4, 1]
    assert np.bincount(rows)[groups == 0].max() == 1
    assert rows.tolist() != resample_rows(groups, shares, 1).tolist()
    assert resample_rows(groups[:0], shares, 0).tolist() == []
    assert resample_rows(groups, np.bincount(groups) / 10, 0).tolist() == list(range(10))
