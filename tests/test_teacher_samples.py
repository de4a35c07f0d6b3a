"""`teacher.n_samples`: what is planned, bought, resumed, kept and reported of several samples."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd import api
from bridgekd.cost.budget import Limits
from bridgekd.cost.budget_slice import compute_limits
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Store, find_ancestors
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.row_files import read_rows
from bridgekd.recipe import BudgetOptions
from bridgekd.records import Completion, Rationale
from bridgekd.report.purchases import gather_purchases
from bridgekd.runs.run import Run, build_run_context
from bridgekd.stages.stats import PurchaseStats
from bridgekd.teacher.transports import prepare_teacher
from conftest import write_jsonl

SAMPLES = ["teacher.n_samples=3", "teacher.temperature=0.7", "teacher.seed=0"]


def buy(recipe, *overrides, n_rows=None):
    """Buy answers in rank order, without any training; kill this process after `n_rows` rows."""

    def kill(label, done, total):
        if label == "teacher" and done == n_rows:
            os.kill(os.getpid(), signal.SIGKILL)

    options = load_recipe(recipe, [*SAMPLES, *overrides])
    teacher = prepare_teacher(options.teacher, recipe.parent)
    options = options.model_copy(update={"teacher": teacher})
    ctx = replace(build_run_context(options, recipe.parent), progress=kill)
    run = Run(options, recipe.parent, Store(recipe.parent / "runs"), ctx)
    pool = run.load_pool()
    answers = run.query_teacher(pool, run.select_questions(pool, strategy="random"))
    return answers, run.check_rationales(pool, answers)


def read_completions(artifact):
    return read_rows(artifact.path / "completions.parquet", Completion)


@given(
    n=st.integers(3, 300), k=st.integers(1, 3),
    cuts=st.lists(st.floats(0, 1), max_size=3).map(sorted),
)  # fmt: skip
def test_n_queries_buy_n_over_k_questions_in_slices_that_add_up(n, k, cuts):
    ends = [0.0, *cuts, 1.0]
    slices = [
        compute_limits(BudgetOptions(queries=n), 300, part, k).queries for part in pairwise(ends)
    ]
    assert sum(slices) == n // k * k and all(part % k == 0 for part in slices)


def test_without_a_limit_every_question_is_bought_k_times():
    assert compute_limits(BudgetOptions(usd=1), 40, n_samples=3) == Limits(120, 1_000_000)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.temperature=0", "same answer several times at teacher.temperature 0. Set a temp"),
        ("budget.queries=2", "budget.queries of 2 buys no question with 3 samples each"),
        ("budget.queries=82", "of 82 is above the 27 questions .* 3 samples each. Set at most 81"),
    ],
)
def test_samples_that_cannot_be_bought_are_refused(task, override, message):
    with pytest.raises(InputError, match=message):
        api.plan(task / "task.yaml", methods=["direct"], overrides=[*SAMPLES, override])


def test_a_plan_counts_calls_and_bounds_what_they_cost(task):
    def plan(*overrides):
        sets = ["budget.usd=null", *overrides]
        return api.plan(task / "task.yaml", methods=["direct"], overrides=sets)

    one, three = plan("budget.queries=4"), plan("budget.queries=14", *SAMPLES)
    (purchase,) = three.purchases
    assert (purchase.requests.limits.queries, purchase.forecast.n_queries) == (12, 12)
    costs = [p.total_cost.unpaid for p in (one, three)]
    assert costs[1].maximum == 3 * costs[0].maximum and costs[1].minimum == 3 * costs[0].minimum


def test_a_shared_sample_is_planned_once(task):
    """direct_full asks each of 27 questions once; 4 of them are asked twice more by direct."""
    sets = ["budget.usd=null", "budget.queries=14", *SAMPLES]
    plan = api.plan(task / "task.yaml", methods=["direct", "direct_full"], overrides=sets)
    assert sorted(p.forecast.n_queries for p in plan.purchases) == [12, 27]
    assert plan.total_cost.n_queries == 27 + 2 * 4


def test_each_selected_question_is_bought_k_times(tiny, teacher):
    answers, checked = buy(tiny, "budget.queries=11")
    rows = read_completions(answers)
    assert list(Counter(row.id for row in rows).values()) == [3, 3, 3]
    assert [row.rank for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({row.key for row in rows}) == 9 == teacher.calls.total()
    stats = answers.read_stats(PurchaseStats)
    assert (stats.n_queries, stats.stop_reason) == (9, "queries")
    assert stats.spend_microusd == sum(row.cost_microusd for row in rows)
    kept = [r for r in read_rows(checked.path / "rationales.parquet", Rationale) if r.kept]
    assert len(kept) == len({(r.id, r.text) for r in kept}) > 0
    (purchase,) = gather_purchases(find_ancestors(checked))
    assert purchase.title.endswith(", 3 samples per question")
    assert (purchase.n_queries, purchase.n_kept) == (9, len(kept))
    assert sum(purchase.dropped.values()) == 9 - len(kept)
    assert 0 < purchase.kept_usd <= purchase.spend_usd == stats.spend_microusd / 1e6


def test_nothing_is_bought_twice_after_a_kill(tiny, teacher):
    code = (
        "import sys, pathlib; from test_teacher_samples import buy; "
        "buy(pathlib.Path(sys.argv[1]), 'budget.queries=9', n_rows=4)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, tiny], check=False, cwd=Path(__file__).parent
    )
    assert child.returncode == -signal.SIGKILL
    rows = read_completions(buy(tiny, "budget.queries=9")[0])
    with closing(sqlite3.connect(tiny.parent / "ledger.db")) as db:
        attempts = db.execute("SELECT key, state FROM attempts").fetchall()
    answered = [key for key, state in attempts if state == "answered"]
    assert sorted(answered) == sorted(row.key for row in rows) and len(set(answered)) == 9
    assert list(Counter(row.id for row in rows).values()) == [3, 3, 3]
    assert teacher.served.total() <= 9 + sum(state == "unknown" for _, state in attempts)


def test_more_samples_reuse_the_first_ones(tiny, teacher):
    buy(tiny, "budget.queries=3", "teacher.n_samples=1")
    answers, _ = buy(tiny, "budget.queries=9")
    assert answers.read_stats(PurchaseStats).n_reused == 3 and teacher.calls.total() == 9


def test_a_recording_is_a_sample_and_a_missing_one_is_counted(tiny):
    rows = [json.loads(line) for line in (tiny.parent / "train.jsonl").read_text().splitlines()]
    recorded = [
        {"question": row["question"], "text": f"Step {i}.\nAnswer: {row['answer']}"}
        for row in rows
        for i in (1, 2, 2)[: 2 + (row["id"] == rows[0]["id"])]
    ]
    write_jsonl(tiny.parent / "recorded.jsonl", recorded)
    sets = ["teacher.transport={name: replay, recordings: recorded.jsonl}", "budget.queries=100%"]
    sets += ["teacher.provider=x", "teacher.temperature=0", "data.validation_size=0"]
    answers, checked = buy(tiny, *sets)
    rows = read_completions(answers)
    texts = [row.text.partition("\n")[0] for row in rows]
    n_missing = answers.read_stats(PurchaseStats).n_unrecorded
    assert texts[:2] == ["Step 1.", "Step 2."]
    assert n_missing == sum(row.state == "unrecorded" for row in rows) in (23, 22)
    kept = [r for r in read_rows(checked.path / "rationales.parquet", Rationale) if r.kept]
    assert Counter(Counter(r.id for r in kept).values()) == {2: 23}
