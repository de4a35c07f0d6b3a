"""The metrics of a comparison: which arms are compared, and the cost of an arm."""

import json
from pathlib import Path

import numpy as np
import pytest

from bridgekd.io.metrics_file import read_metrics, write_metrics
from bridgekd.stats.answer_metrics import AnswerTraits, summarize_answers
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
from bridgekd.stats.repetition import is_repetitive

SCHEMA = Path(__file__).parents[1] / "docs" / "metrics.schema.json"
N_TEST = 200
IDS = [f"q{i}" for i in range(N_TEST)]
DOMAINS = {id: "even" if i % 2 == 0 else "odd" for i, id in enumerate(IDS)}


def make_result(arm, seed=0, budget="", accuracy=0.5, *, trained=True, ids=IDS, **fields):
    """Return a model that is correct with probability `accuracy`."""
    rng = np.random.default_rng([sum(map(ord, arm + budget)), seed])
    right = dict(zip(ids, (rng.random(len(ids)) < accuracy).tolist(), strict=True))
    amounts = {"n_queries": 0, "spend_usd": 0.0, "seconds": 1.0} | fields
    return ArmResult(
        arm, seed, budget, right, dict.fromkeys(ids, 7), {}, is_trained=trained, **amounts
    )


def summarize(results, domains, steps=None):
    """Return the metrics of some results."""
    return compute_metrics(results, domains, chance=ChanceBaseline(0.1, "guessing"), steps=steps)


def make_seeds(arm, budget="", accuracy=0.5, n=5, **fields):
    return [make_result(arm, seed, budget, accuracy, **fields) for seed in range(n)]


def make_comparison():
    """Two budgets; bridge is 30 points better than direct, random is equal."""
    results = make_seeds("student_base", accuracy=0.1, trained=False)
    results += [make_result("teacher", accuracy=0.9, trained=False, ids=IDS[:120])]
    for budget, n in (("1%", 10), ("5%", 50)):
        paid = {"n_queries": n, "spend_usd": n / 1000}
        results += make_seeds("direct", budget, 0.3, **paid)
        results += make_seeds("random", budget, 0.3, **paid)
        results += make_seeds("bridge", budget, 0.6, **paid)
    return results + make_seeds("answers_only", accuracy=0.35)


def test_one_seed_and_budget_is_a_plain_run():
    metrics = summarize(
        [make_result("direct", budget="5%"), make_result("bridge", budget="5%")], DOMAINS
    )
    row = metrics.arms["bridge"]
    assert (row.n_seeds, row.interval, row.ci95) == (
        1, "Wilson", wilson_interval(row.n_correct, N_TEST)
    )  # fmt: skip
    assert [(pair.arm, pair.reference) for pair in metrics.pairs] == [("bridge", "direct")]
    assert metrics.pairs[0].test == "McNemar"


def test_label_has_budget_only_if_arm_has_several():
    assert set(group_by_label(make_comparison())) == {
        "student_base", "teacher", "answers_only",
        *(f"{arm}@{b}" for arm in ("direct", "random", "bridge") for b in ("1%", "5%")),
    }  # fmt: skip


def test_every_trained_student_is_compared_with_direct_at_its_budget():
    rows = compare_with_reference(group_by_label(make_comparison()))
    assert {(r.arm, r.reference) for r in rows} == {
        ("random@1%", "direct@1%"), ("random@5%", "direct@5%"),
        ("bridge@1%", "direct@1%"), ("bridge@5%", "direct@5%"),
        ("answers_only", "direct@1%"), ("answers_only", "direct@5%"),
    }  # fmt: skip
    by_arm = {r.arm: r for r in rows}
    assert by_arm["bridge@5%"].p_holm < 0.001 < by_arm["random@5%"].p_holm
    assert all(r.p_holm >= r.p for r in rows)


def test_interval_of_difference_covers_true_value():
    row = next(
        r for r in compare_with_reference(group_by_label(make_comparison())) if r.arm == "bridge@5%"
    )
    assert row.ci95[0] < 0.3 < row.ci95[1]
    assert (row.n_seeds, len(row.p_by_seed), row.n_test) == (5, 5, N_TEST)


def test_pairs_have_same_budget_or_one_arm_has_only_one():
    metrics = summarize(make_comparison(), DOMAINS)
    assert metrics.find_pair("bridge@5%", "direct@5%") and metrics.find_pair(
        "answers_only", "direct@1%"
    )
    assert not any("@1%" in p.arm and "@5%" in p.reference for p in metrics.pairs)
    assert metrics.find_pair("teacher", "direct@1%").n_test == 120


def test_recovered_gap_uses_only_questions_that_teacher_answered():
    metrics = summarize(make_comparison(), DOMAINS).arms["bridge@5%"].gap_recovered
    assert metrics.n_test == 120
    assert metrics.ci95[0] < (0.6 - 0.1) / (0.9 - 0.1) < metrics.ci95[1]


def test_dollars_and_queries_per_point_have_interval_of_gain():
    gain = summarize(make_comparison(), DOMAINS).arms["bridge@5%"].gain
    assert gain.start == "student_base"
    assert gain.queries_per_point.value == pytest.approx(50 / gain.points)
    low, high = gain.usd_per_point.ci95
    assert low < 0.05 / 50 < high


def test_gain_that_may_be_0_is_not_shown():
    results = make_seeds("student_base", accuracy=0.3, trained=False) + make_seeds(
        "direct", accuracy=0.3
    )
    gain = summarize(results, DOMAINS).arms["direct"].gain
    assert (gain.verdict, gain.usd_per_point, gain.queries_per_point) == (
        "not shown", None, None
    )  # fmt: skip


def test_several_seeds_are_averaged_and_listed():
    results = [make_result("direct", seed, n_queries=n) for seed, n in ((0, 10), (1, 11))]
    row = summarize(results, DOMAINS).arms["direct"]
    assert row.n_queries == 10.5
    assert [(s.seed, s.n_queries) for s in row.by_seed] == [(0, 10), (1, 11)]
    assert row.accuracy == pytest.approx(np.mean([s.accuracy for s in row.by_seed]))


def test_wrong_steps_exist_only_with_checker():
    training_set = TrainingSetStats([4, 6], [0.0, 0.2])
    words, wrong = {"a": 3, "b": 5}, {"a": 0.0, "b": 0.5}
    checked = [
        ArmResult("direct", seed, "", {"a": True, "b": False}, words, wrong, 1, 0.1, 1.0,
                  is_trained=True, training_set=training_set)
        for seed in range(2)
    ]  # fmt: skip
    row = summarize(checked, {"a": "", "b": ""}).arms["direct"]
    assert (row.wrong_steps.mean, row.rationale_words.mean) == (0.25, 4)
    assert row.training_set.n_kept == (2, 2)
    assert row.training_set.wrong_steps.mean == pytest.approx(0.1)
    plain = summarize([make_result("direct")], DOMAINS).arms["direct"]
    assert plain.wrong_steps is None and plain.training_set is None


def test_accuracy_by_steps_ignores_questions_without_count():
    steps = {id: "2" if i % 2 else "3 to 5" for i, id in enumerate(IDS[:50])}
    row = summarize([make_result("direct", budget="5%")], DOMAINS, steps).arms["direct"]
    assert {group: metrics.n_test for group, metrics in row.by_steps.items()} == {
        "2": 25, "3 to 5": 25
    }  # fmt: skip
    assert sum(metrics.n_test for metrics in row.by_domain.values()) == N_TEST


def test_answer_figures_are_shares_of_questions():
    first = {
        "a": AnswerTraits(10),
        "b": AnswerTraits(30, is_cut_off=True, has_answer=False),
        "c": AnswerTraits(30, is_cut_off=True, has_answer=False, is_repetitive=True),
        "d": AnswerTraits(10, has_answer=False),
    }
    figures = summarize_answers([first], list("abcd"))
    assert (figures.tokens.mean, figures.cut_off.mean) == (20, 0.5)
    assert (figures.without_answer.mean, figures.repetitive.mean) == (0.75, 0.25)
    assert figures.repetitive.ci95 == wilson_interval(1, 4)
    second = dict.fromkeys("abcd", AnswerTraits(40))
    assert summarize_answers([first, second], list("abcd")).tokens.mean == 30
    assert summarize_answers([first, second], ["c"]).repetitive.mean == 0.5
    assert summarize_answers([first, {}], ["c"]) is None


def test_text_that_loops_is_repetitive_and_a_list_is_not():
    steps = "".join(f"Step {k}: {k} + {k + 3} = {2 * k + 3}. " for k in range(60))
    assert not is_repetitive(steps) and not is_repetitive("") and not is_repetitive("a" * 9)
    start = "Ann has 3 boxes with 4 pens in each of them, so we multiply. "
    assert is_repetitive(start + "7 " * 300)
    assert is_repetitive(start + "So she has 12 pens, and each of them is in a box. " * 20)
    assert is_repetitive(start + "1" * 400) and is_repetitive("因为三加四等于七，" * 30)


def test_metrics_file_round_trip(tmp_path):
    metrics = summarize(make_comparison(), DOMAINS)
    write_metrics(tmp_path, metrics)
    assert read_metrics(tmp_path) == metrics


def test_published_schema_is_the_schema_of_the_model():
    """After a change: python -m bridgekd.stats.metrics > docs/metrics.schema.json"""
    assert json.loads(SCHEMA.read_text()) == Metrics.model_json_schema()
