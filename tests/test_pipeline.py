"""The whole run, for real and in small: real HTTP, real SQLite, real training."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest

import bridgekd
from bridgekd.io.row_files import read_rows
from bridgekd.records import Completion, Example, Pick, Rationale
from bridgekd.rng import make_rng

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bridgekd.lm.training_loop", "bridgekd.lm.score", "bridgekd.api"])
BOTH = ["bridge", "direct"]
STAGES = [
    "load_pool", "warm_up", "score_pool", "select_questions", "query_teacher",
    "check_rationales", "train_assistant", "annotate", "instruct_student", "train_student",
    "load_test", "evaluate_teacher", "predict", "evaluate", "report",
]  # fmt: skip


def run_and_die(recipe, where, after=1, overrides=()):
    """Runs a recipe and kills its own process when `where` has done so much."""

    def die(what, done, total):
        if what == where and done >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    bridgekd.run(recipe, methods=BOTH, progress=die, overrides=overrides)


def in_a_process(target, *arguments):
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def rows_of(store):
    """Every row, figure and weight of a store, by folder: all but seconds and the page that shows
    them.
    """
    found = {}
    for path in sorted(store.rglob("*")):
        if path.suffix in {".parquet", ".safetensors", ".npy"}:
            found[str(path.relative_to(store))] = path.read_bytes()
        if path.name == "metrics.json" and path.parent.name.startswith("evaluate-"):
            metrics = json.loads(path.read_text())
            for arm in metrics["arms"].values():
                for figures in (arm, *arm["by_seed"]):
                    del figures["seconds"]
            found[str(path.relative_to(store))] = json.dumps(metrics).encode()
    return found


def differing(some, others):
    """The files that are not the same on both sides."""
    return sorted(k for k in some.keys() | others.keys() if some.get(k) != others.get(k))


def artifact(store, stage):
    """The only artifact of a stage."""
    (found,) = store.glob(f"{stage}-*")
    return found


def test_bridge_runs_from_files_to_a_report(tiny, teacher):
    outcome = bridgekd.run(tiny)
    store = tiny.parent / "runs"
    journal = json.loads((store / "tiny.json").read_text())
    assert sorted({row["stage"] for row in journal["stages"]}) == sorted(STAGES)
    assert journal["state"] == "done"
    picks = read_rows(artifact(store, "select_questions") / "ranking.parquet", Pick)
    bought = read_rows(artifact(store, "query_teacher") / "completions.parquet", Completion)
    assert [c.id for c in bought] == [p.id for p in picks if p.is_selected]
    notes = read_rows(artifact(store, "annotate") / "rationales.parquet", Rationale)
    assert len(notes) == 60
    facts = json.loads((artifact(store, "annotate") / "manifest.json").read_text())["stats"]
    assert facts["generation"]["n_texts"] == 60
    assert 0 < facts["generation"]["n_generated_tokens"] <= 60 * 8
    assert teacher.calls.total() == 12 + 5
    arm = outcome.metrics.arms["bridge"]
    assert (arm.n_test, arm.n_queries) == (20, 12)
    assert arm.spend_usd == pytest.approx(sum(c.cost_microusd for c in bought) / 1e6)
    assert outcome.metrics.arms["teacher"].accuracy == 1.0
    assert "<svg" in outcome.report.read_text()


def test_a_second_run_makes_no_call_and_trains_nothing(tiny, teacher):
    first = bridgekd.run(tiny, methods=BOTH)
    calls, folders = teacher.calls.total(), sorted((tiny.parent / "runs").iterdir())
    told = []
    second = bridgekd.run(tiny, methods=BOTH, progress=lambda *what: told.append(what))
    assert second.metrics == first.metrics
    assert (teacher.calls.total(), sorted((tiny.parent / "runs").iterdir())) == (calls, folders)
    assert told == []


def test_planning_sends_nothing_and_writes_nothing(tiny, teacher):
    before = sorted(tiny.parent.rglob("*"))
    plan = bridgekd.plan(tiny)
    assert [a.stage for a in plan.stages if a.done] == []
    assert (plan.n_pool, plan.train_cost.n_queries, plan.eval_cost.n_queries) == (60, 12, 5)
    assert teacher.calls.total() == 0
    assert sorted(tiny.parent.rglob("*")) == before


def test_the_bill_falls_inside_the_plan(tiny):
    plan = bridgekd.plan(tiny)
    spend = bridgekd.run(tiny).metrics.arms["bridge"].spend_usd
    assert plan.train_cost.total.minimum <= spend * 1e6 <= plan.train_cost.total.maximum


@pytest.mark.parametrize(
    ("override", "still_there"),
    [
        (
            "select.strategy={name: bridge_greedy, alpha: 0.9}",
            {"load_pool", "warm_up", "score_pool", "instruct_student"},
        ),
        ("student.train.updates=5", {"query_teacher", "annotate", "instruct_student"}),
        ("annotate.filter=correct", {"query_teacher", "train_assistant", "instruct_student"}),
    ],
)
def test_changing_one_key_redoes_only_what_depends_on_it(tiny, override, still_there):
    bridgekd.run(tiny)
    plan = bridgekd.plan(tiny, overrides=[override])
    done = {a.stage for a in plan.stages if a.done}
    assert still_there <= done
    assert not {"train_student", "evaluate"} & done


def test_what_changes_no_result_redoes_nothing(tiny):
    bridgekd.run(tiny)
    for override in ("teacher.base_url=http://127.0.0.1:9/v1", "teacher.max_concurrent_requests=3"):
        plan = bridgekd.plan(tiny, overrides=[override])
        assert {a.stage for a in plan.stages if not a.done} <= {"report"}


def test_random_choice_does_not_follow_the_warm_up_draw(tiny):
    """Two draws from one seed must not be the same questions: they would be bought for nothing."""
    bridgekd.run(tiny, methods=["bridge_random"], overrides=["assistant.warm_up_size=12"])
    store = tiny.parent / "runs"
    picks = read_rows(artifact(store, "select_questions") / "ranking.parquet", Pick)
    pool = read_rows(artifact(store, "load_pool") / "pool.parquet", Example)
    drawn = make_rng(0, "warm-up").permutation(len(pool))[:12]
    assert len({p.id for p in picks if p.is_selected} & {pool[i].id for i in drawn}) <= 6


def test_a_budget_in_dollars_is_a_normal_end(tiny, teacher):
    outcome = bridgekd.run(tiny, overrides=["budget.usd=0.012"])
    facts = json.loads(
        (artifact(tiny.parent / "runs", "query_teacher") / "manifest.json").read_text()
    )
    assert facts["stats"]["stop_reason"] == "usd"
    assert 0 < outcome.metrics.arms["bridge"].n_queries < 12
    assert outcome.metrics.arms["bridge"].spend_usd <= 0.012


def test_a_warm_ledger_gives_the_rows_of_a_cold_one(tiny, teacher):
    bridgekd.run(tiny)
    first = rows_of(tiny.parent / "runs")
    shutil.rmtree(tiny.parent / "runs")
    calls = teacher.calls.total()
    bridgekd.run(tiny)
    assert differing(rows_of(tiny.parent / "runs"), first) == []
    assert teacher.calls.total() == calls


@pytest.fixture
def undisturbed(tiny, tmp_path):
    """The rows of a run that nobody killed, with a ledger of its own."""
    folder = tmp_path / "undisturbed"
    shutil.copytree(tiny.parent, folder)
    bridgekd.run(folder / "tiny.yaml", methods=BOTH)
    return rows_of(folder / "runs")


def test_killed_in_every_kind_of_stage_a_run_ends_with_the_same_rows(tiny, undisturbed):
    places = [
        "train assistant on answers", "score", "teacher", "train assistant on rationales",
        "annotate the pool", "train student on instructions", "train student on rationales",
        "answer the test questions",
    ]  # fmt: skip
    for where in places:
        process = in_a_process(run_and_die, tiny, where)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{where} was never reached"
    bridgekd.run(tiny, methods=BOTH)
    assert differing(rows_of(tiny.parent / "runs"), undisturbed) == []


def test_killed_in_the_middle_of_each_training_a_run_goes_on_there(tiny, undisturbed):
    stages = ["warm_up", "train_assistant", "instruct_student", "train_student"]
    places = [
        "train assistant on answers", "train assistant on rationales",
        "train student on instructions", "train student on rationales",
    ]  # fmt: skip
    always = ["runtime.checkpoint_interval_s=0"]
    for where in places:
        process = in_a_process(run_and_die, tiny, where, 3, always)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{where} was never reached"
    bridgekd.run(tiny, methods=BOTH, overrides=always)
    assert differing(rows_of(tiny.parent / "runs"), undisturbed) == []
    runs = tiny.parent / "runs"
    told = [json.loads(p.read_text()) for s in stages for p in runs.glob(f"{s}-*/manifest.json")]
    assert sum(m["stats"]["resumed_at"] == 2 for m in told) == 4


def test_runs_at_once_share_one_store(tiny, undisturbed):
    runs = [in_a_process(bridgekd.run, tiny) for _ in range(2)]
    runs.append(in_a_process(run_direct, tiny))
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0, 0]
    bridgekd.run(tiny, methods=BOTH)
    rows = rows_of(tiny.parent / "runs")
    assert differing({k: rows.get(k) for k in undisturbed}, undisturbed) == []


def run_direct(recipe):
    bridgekd.run(recipe, overrides=["name=other"], methods=["direct"])
