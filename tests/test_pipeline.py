"""A complete small run with real HTTP, real SQLite and real training."""

import json
import multiprocessing
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import bridgekd
from bridgekd.io.row_files import read_rows
from bridgekd.records import Completion, Example, Pick, Rationale
from bridgekd.rng import make_rng
from conftest import TINY_RECIPE
from faulty_teacher import FaultyTeacherServer, run_teacher_server

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bridgekd.lm.training_loop", "bridgekd.lm.score", "bridgekd.api"])
BOTH = ["bridge", "direct"]
STAGES = [
    "load_pool", "warm_up", "score_pool", "select_questions", "query_teacher",
    "check_rationales", "train_assistant", "annotate", "instruct_student", "train_student",
    "load_test", "evaluate_teacher", "predict", "evaluate", "report",
]  # fmt: skip


def run_and_die(recipe, where, after=1, overrides=()):
    """Run a recipe and kill its own process when `where` has reported `after`."""

    def die(what, done, total):
        if what == where and done >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    bridgekd.run(recipe, methods=BOTH, progress=die, overrides=overrides)


def start_process(target, *arguments):
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def rows_of(store):
    """Return every file of rows, metrics or weights in a store, without seconds."""
    files = {}
    for path in sorted(store.rglob("*")):
        if path.suffix in {".parquet", ".safetensors", ".npy"}:
            files[str(path.relative_to(store))] = path.read_bytes()
        if path.name == "metrics.json" and path.parent.name.startswith("evaluate-"):
            metrics = json.loads(path.read_text())
            for arm in metrics["arms"].values():
                for row in (arm, *arm["by_seed"]):
                    del row["seconds"]
            files[str(path.relative_to(store))] = json.dumps(metrics).encode()
    return files


def differing(some, others):
    """Return the files that differ."""
    return sorted(k for k in some.keys() | others.keys() if some.get(k) != others.get(k))


def artifact(store, stage):
    """Return the only artifact of a stage."""
    (folder,) = store.glob(f"{stage}-*")
    return folder


class FinishedRun(NamedTuple):
    """A run that tests only read: its recipe, its plan, its result and its teacher."""

    recipe: Path
    plan: bridgekd.Plan
    result: bridgekd.RunResult
    teacher: FaultyTeacherServer

    @property
    def store(self):
        return self.recipe.parent / "runs"


@contextmanager
def finish_run(world_files, folder, methods):
    shutil.copytree(world_files, folder)
    recipe = folder / "tiny.yaml"
    with run_teacher_server(wrong_rate=0.0) as teacher:
        recipe.write_text(TINY_RECIPE % teacher.base_url)
        plan = bridgekd.plan(recipe, methods=methods)
        yield FinishedRun(recipe, plan, bridgekd.run(recipe, methods=methods), teacher)


@pytest.fixture(scope="module")
def finished(world_files, tmp_path_factory):
    """A finished run of bridge."""
    with finish_run(world_files, tmp_path_factory.mktemp("finished") / "tiny", []) as run:
        yield run


@pytest.fixture(scope="module")
def compared(world_files, tmp_path_factory):
    """A finished comparison that was not killed."""
    with finish_run(world_files, tmp_path_factory.mktemp("compared") / "tiny", BOTH) as run:
        yield run


def test_plan_and_report_compare_a_selection_that_is_made_with_random_ones(finished):
    assert {p.selection for p in finished.plan.purchases} == {None}
    plan = bridgekd.plan(finished.recipe, overrides=["teacher.max_tokens=99"])
    purchase = next(p for p in plan.purchases if not p.requests.is_evaluation)
    assert purchase.selection.n_selected == purchase.requests.limits.queries
    names = [figure.name for figure in purchase.selection.figures]
    assert names[-2:] == ["kernel distance", "typicality"] and "domains" in names
    text = (finished.result.report.parent / "report.md").read_text()
    assert f"| domains | {purchase.selection.figures[0].value:.3g} |" in text


def test_bridge_runs_from_files_to_a_report(finished):
    result, store = finished.result, finished.store
    metadata = json.loads((store / "tiny.json").read_text())
    assert sorted({row["stage"] for row in metadata["stages"]}) == sorted(STAGES)
    assert metadata["state"] == "done"
    picks = read_rows(artifact(store, "select_questions") / "ranking.parquet", Pick)
    completions = read_rows(artifact(store, "query_teacher") / "completions.parquet", Completion)
    assert [c.id for c in completions] == [p.id for p in picks if p.is_selected]
    rationales = read_rows(artifact(store, "annotate") / "rationales.parquet", Rationale)
    assert len(rationales) == 60
    stats = json.loads((artifact(store, "annotate") / "manifest.json").read_text())["stats"]
    assert stats["generation"]["n_texts"] == 60
    assert 0 < stats["generation"]["n_generated_tokens"] <= 60 * 8
    assert finished.teacher.calls.total() == 12 + 5
    arm = result.metrics.arms["bridge"]
    assert (arm.n_test, arm.n_queries) == (20, 12)
    assert arm.spend_usd == pytest.approx(sum(c.cost_microusd for c in completions) / 1e6)
    assert result.metrics.arms["teacher"].accuracy == 1.0
    assert "<svg" in result.report.read_text()


def test_second_run_sends_and_trains_nothing(compared):
    calls, folders = compared.teacher.calls.total(), sorted(compared.store.iterdir())
    reported = []
    second = bridgekd.run(
        compared.recipe, methods=BOTH, progress=lambda *what: reported.append(what)
    )
    assert second.metrics == compared.result.metrics
    assert compared.teacher.calls.total() == calls
    assert sorted(compared.store.iterdir()) == folders
    assert reported == []


def test_planning_sends_nothing_and_writes_nothing(tiny, teacher):
    before = sorted(tiny.parent.rglob("*"))
    plan = bridgekd.plan(tiny)
    assert [a.stage for a in plan.stages if a.done] == []
    assert (plan.n_pool, plan.train_cost.n_queries, plan.eval_cost.n_queries) == (60, 12, 5)
    assert teacher.calls.total() == 0
    assert sorted(tiny.parent.rglob("*")) == before


def test_cost_is_inside_the_plan(finished):
    plan, spend = finished.plan, finished.result.metrics.arms["bridge"].spend_usd
    assert plan.train_cost.total.minimum <= spend * 1e6 <= plan.train_cost.total.maximum


@pytest.mark.parametrize(
    ("override", "kept_stages"),
    [
        (
            "select.strategy={name: bridge_greedy, alpha: 0.9}",
            {"load_pool", "warm_up", "score_pool", "instruct_student"},
        ),
        ("student.max_new_tokens=20", {"query_teacher", "annotate", "instruct_student"}),
        ("student.train.updates=5", {"query_teacher", "annotate", "instruct_student"}),
        ("annotate.filter=correct", {"query_teacher", "train_assistant", "instruct_student"}),
    ],
)
def test_changing_one_key_redoes_only_what_depends_on_it(finished, override, kept_stages):
    plan = bridgekd.plan(finished.recipe, overrides=[override])
    done = {a.stage for a in plan.stages if a.done}
    assert kept_stages <= done
    assert not {"train_student", "evaluate"} & done


def test_key_that_changes_no_result_redoes_nothing(finished):
    for override in ("teacher.base_url=http://127.0.0.1:9/v1", "teacher.max_concurrent_requests=3"):
        plan = bridgekd.plan(finished.recipe, overrides=[override])
        assert {a.stage for a in plan.stages if not a.done} <= {"report"}


def test_random_selection_is_independent_of_the_warm_up_sample(tiny):
    """The assistant has seen the answers of its warm-up, so buying them again wastes money."""
    bridgekd.run(tiny, methods=["bridge_random"], overrides=["assistant.warm_up_size=12"])
    store = tiny.parent / "runs"
    picks = read_rows(artifact(store, "select_questions") / "ranking.parquet", Pick)
    pool = read_rows(artifact(store, "load_pool") / "pool.parquet", Example)
    sampled = make_rng(0, "warm-up").permutation(len(pool))[:12]
    assert len({p.id for p in picks if p.is_selected} & {pool[i].id for i in sampled}) <= 6


def test_budget_in_dollars_is_a_normal_end(tiny, teacher):
    result = bridgekd.run(tiny, overrides=["budget.usd=0.012"])
    manifest = json.loads(
        (artifact(tiny.parent / "runs", "query_teacher") / "manifest.json").read_text()
    )
    assert manifest["stats"]["stop_reason"] == "usd"
    assert 0 < result.metrics.arms["bridge"].n_queries < 12
    assert result.metrics.arms["bridge"].spend_usd <= 0.012


def test_filled_ledger_gives_the_rows_of_an_empty_one(finished, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(finished.recipe.parent, folder, ignore=shutil.ignore_patterns("runs"))
    calls = finished.teacher.calls.total()
    bridgekd.run(folder / "tiny.yaml")
    assert differing(rows_of(folder / "runs"), rows_of(finished.store)) == []
    assert finished.teacher.calls.total() == calls


@pytest.fixture(scope="module")
def undisturbed(compared):
    """The rows of a run that was not killed, with a ledger of its own."""
    return rows_of(compared.store)


def test_run_killed_in_any_stage_ends_with_the_same_rows(tiny, undisturbed):
    places = [
        "train assistant on answers", "score", "teacher", "train assistant on rationales",
        "annotate the pool", "train student on instructions", "train student on rationales",
        "answer the test questions",
    ]  # fmt: skip
    for where in places:
        process = start_process(run_and_die, tiny, where)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{where} was never reached"
    bridgekd.run(tiny, methods=BOTH)
    assert differing(rows_of(tiny.parent / "runs"), undisturbed) == []


def test_run_killed_in_a_training_resumes_inside_it(tiny, undisturbed):
    stages = ["warm_up", "train_assistant", "instruct_student", "train_student"]
    places = [
        "train assistant on answers", "train assistant on rationales",
        "train student on instructions", "train student on rationales",
    ]  # fmt: skip
    always = ["runtime.checkpoint_interval_s=0"]
    for where in places:
        process = start_process(run_and_die, tiny, where, 3, always)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{where} was never reached"
    bridgekd.run(tiny, methods=BOTH, overrides=always)
    assert differing(rows_of(tiny.parent / "runs"), undisturbed) == []
    runs = tiny.parent / "runs"
    manifests = [
        json.loads(p.read_text()) for s in stages for p in runs.glob(f"{s}-*/manifest.json")
    ]
    assert sum(m["stats"]["resumed_at"] == 2 for m in manifests) == 4


def test_concurrent_runs_share_one_store(tiny, undisturbed):
    runs = [start_process(bridgekd.run, tiny) for _ in range(2)]
    runs.append(start_process(run_direct, tiny))
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0, 0]
    bridgekd.run(tiny, methods=BOTH)
    rows = rows_of(tiny.parent / "runs")
    assert differing({k: rows.get(k) for k in undisturbed}, undisturbed) == []


def run_direct(recipe):
    bridgekd.run(recipe, overrides=["name=other"], methods=["direct"])
