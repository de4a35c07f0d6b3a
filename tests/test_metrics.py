"""The figures of a comparison: what is compared with what, and what an arm is charged."""

import json
from pathlib import Path

import numpy as np
import pytest

from bridgekd.io.metrics_file import read_metrics, write_metrics
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.compute_metrics import (
    ArmResult,
    TrainingSetStats,
    compare_with_reference,
    compute_metrics,
    group_by_label,
)
from bridgekd.stats.intervals import wilson_interval
from bridgekd.stats.metrics import Metrics

SCHEMA = Path(__file__).parents[1] / "docs" / "metrics.schema.json"
N_TEST = 200
IDS = [f"q{i}" for i in range(N_TEST)]
DOMAINS = {id: "even" if i % 2 == 0 else "odd" for i, id in enumerate(IDS)}


def a_cell(arm, seed=0, budget="", share=0.5, *, trained=True, ids=IDS, **fields):
    """A model that is right with chance `share`, by a draw of its own."""
    rng = np.random.default_rng([sum(map(ord, arm + budget)), seed])
    right = dict(zip(ids, (rng.random(len(ids)) < share).tolist(), strict=True))
    amounts = {"n_queries": 0, "spend_usd": 0.0, "seconds": 1.0} | fields
    return ArmResult(
        arm, seed, budget, right, dict.fromkeys(ids, 7), {}, is_trained=trained, **amounts
    )


def compared(cells, domains, steps=None):
    """All figures of some results."""
    return compute_metrics(cells, domains, chance=ChanceBaseline(0.1, "guessing"), steps=steps)


def over_seeds(arm, budget="", share=0.5, n=5, **fields):
    return [a_cell(arm, seed, budget, share, **fields) for seed in range(n)]


def a_comparison():
    """Two budgets; bridge is 30 points better than direct, random as good."""
    cells = over_seeds("student_base", share=0.1, trained=False)
    cells += [a_cell("teacher", share=0.9, trained=False, ids=IDS[:120])]
    for budget, n in (("1%", 10), ("5%", 50)):
        paid = {"n_queries": n, "spend_usd": n / 1000}
        cells += over_seeds("direct", budget, 0.3, **paid)
        cells += over_seeds("random", budget, 0.3, **paid)
        cells += over_seeds("bridge", budget, 0.6, **paid)
    return cells + over_seeds("answers_only", share=0.35)


def test_one_seed_and_budget_is_a_plain_run():
    told = compared([a_cell("direct", budget="5%"), a_cell("bridge", budget="5%")], DOMAINS)
    row = told.arms["bridge"]
    assert (row.n_seeds, row.interval, row.ci95) == (
        1, "Wilson", wilson_interval(row.n_correct, N_TEST)
    )  # fmt: skip
    assert [(pair.arm, pair.reference) for pair in told.pairs] == [("bridge", "direct")]
    assert told.pairs[0].test == "McNemar"


def test_an_arm_is_named_by_its_budget_only_where_it_has_several():
    assert set(group_by_label(a_comparison())) == {
        "student_base", "teacher", "answers_only",
        *(f"{arm}@{b}" for arm in ("direct", "random", "bridge") for b in ("1%", "5%")),
    }  # fmt: skip


def test_every_trained_student_is_held_against_direct_at_its_own_budget():
    rows = compare_with_reference(group_by_label(a_comparison()))
    assert {(r.arm, r.reference) for r in rows} == {
        ("random@1%", "direct@1%"), ("random@5%", "direct@5%"),
        ("bridge@1%", "direct@1%"), ("bridge@5%", "direct@5%"),
        ("answers_only", "direct@1%"), ("answers_only", "direct@5%"),
    }  # fmt: skip
    by_arm = {r.arm: r for r in rows}
    assert by_arm["bridge@5%"].p_holm < 0.001 < by_arm["random@5%"].p_holm
    assert all(r.p_holm >= r.p for r in rows)


def test_a_difference_holds_what_was_planted():
    row = next(
        r for r in compare_with_reference(group_by_label(a_comparison())) if r.arm == "bridge@5%"
    )
    assert row.ci95[0] < 0.3 < row.ci95[1]
    assert (row.n_seeds, len(row.p_by_seed), row.n_test) == (5, 5, N_TEST)


def test_pairs_are_of_the_same_budget_or_of_an_arm_that_has_but_one():
    metrics = compared(a_comparison(), DOMAINS)
    assert metrics.find_pair("bridge@5%", "direct@5%") and metrics.find_pair(
        "answers_only", "direct@1%"
    )
    assert not any("@1%" in p.arm and "@5%" in p.reference for p in metrics.pairs)
    assert metrics.find_pair("teacher", "direct@1%").n_test == 120


def test_the_share_of_the_gap_is_of_the_questions_the_teacher_was_asked():
    told = compared(a_comparison(), DOMAINS).arms["bridge@5%"].gap_recovered
    assert told.n_test == 120
    assert told.ci95[0] < (0.6 - 0.1) / (0.9 - 0.1) < told.ci95[1]


def test_dollars_and_queries_per_point_have_the_gain_s_interval():
    gain = compared(a_comparison(), DOMAINS).arms["bridge@5%"].gain
    assert gain.start == "student_base"
    assert gain.queries_per_point.value == pytest.approx(50 / gain.points)
    low, high = gain.usd_per_point.ci95
    assert low < 0.05 / 50 < high


def test_a_gain_that_may_be_none_says_so():
    cells = over_seeds("student_base", share=0.3, trained=False) + over_seeds("direct", share=0.3)
    gain = compared(cells, DOMAINS).arms["direct"].gain
    assert (gain.verdict, gain.usd_per_point, gain.queries_per_point) == (
        "not shown", None, None
    )  # fmt: skip


def test_several_seeds_are_means_and_every_seed_stands_beside():
    cells = [a_cell("direct", seed, n_queries=n) for seed, n in ((0, 10), (1, 11))]
    row = compared(cells, DOMAINS).arms["direct"]
    assert row.n_queries == 10.5
    assert [(s.seed, s.n_queries) for s in row.by_seed] == [(0, 10), (1, 11)]
    assert row.accuracy == pytest.approx(np.mean([s.accuracy for s in row.by_seed]))


def test_wrong_steps_are_told_only_where_they_could_be_checked():
    training_set = TrainingSetStats([4, 6], [0.0, 0.2])
    words, wrong = {"a": 3, "b": 5}, {"a": 0.0, "b": 0.5}
    checked = [
        ArmResult("direct", seed, "", {"a": True, "b": False}, words, wrong, 1, 0.1, 1.0,
                  is_trained=True, training_set=training_set)
        for seed in range(2)
    ]  # fmt: skip
    row = compared(checked, {"a": "", "b": ""}).arms["direct"]
    assert (row.wrong_steps.mean, row.rationale_words.mean) == (0.25, 4)
    assert row.training_set.n_kept == (2, 2)
    assert row.training_set.wrong_steps.mean == pytest.approx(0.1)
    plain = compared([a_cell("direct")], DOMAINS).arms["direct"]
    assert plain.wrong_steps is None and plain.training_set is None


def test_accuracy_by_steps_leaves_out_what_nobody_could_count():
    steps = {id: "2" if i % 2 else "3 to 5" for i, id in enumerate(IDS[:50])}
    row = compared([a_cell("direct", budget="5%")], DOMAINS, steps).arms["direct"]
    assert {group: told.n_test for group, told in row.by_steps.items()} == {
        "2": 25, "3 to 5": 25
    }  # fmt: skip
    assert sum(told.n_test for told in row.by_domain.values()) == N_TEST


def test_figures_read_back_from_their_file_are_equal(tmp_path):
    metrics = compared(a_comparison(), DOMAINS)
    write_metrics(tmp_path, metrics)
    assert read_metrics(tmp_path) == metrics


def test_published_schema_is_the_schema_of_the_model():
    """After a change: python -m bridgekd.stats.metrics > docs/metrics.schema.json"""
    assert json.loads(SCHEMA.read_text()) == Metrics.model_json_schema()
