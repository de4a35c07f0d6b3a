"""`--json` prints one typed document to stdout, with the figures of the text output."""

import json
from pathlib import Path

import pytest

import bridgekd
from bridgekd.cli.documents import (
    PlanDocument,
    SpendDocument,
    StatusDocument,
    VariantList,
    build_schema,
)
from bridgekd.cli.main import main
from bridgekd.stats.metrics import Metrics

SCHEMA = Path(__file__).parents[1] / "docs" / "commands.schema.json"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command; return its stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments, code=0):
        assert main([str(argument) for argument in arguments]) == code
        return capsys.readouterr()

    return call


@pytest.fixture
def interrupted(tiny):
    """A store with a run whose teacher stopped answering after some questions."""
    from faulty_teacher import Faults, run_teacher_server

    with (
        run_teacher_server(faults=Faults(quota_after=8), wrong_rate=0.0) as server,
        pytest.raises(bridgekd.StoppedError),
    ):
        overrides = [f"teacher.base_url={server.base_url}"]
        bridgekd.run(tiny, overrides=overrides, methods=["direct"], consent=lambda plan: True)
    return tiny.parent / "runs"


def test_plan_as_json_has_the_figures_of_the_text(task, run):
    recipe = task / "task.yaml"
    printed = run("plan", recipe, "--json")
    assert printed.err == ""
    document = PlanDocument.model_validate_json(printed.out)
    plan = bridgekd.plan(recipe)
    assert [(s.stage, s.folder, s.done) for s in document.stages] == [
        (a.stage, a.path.name, a.done) for a in plan.stages
    ]
    assert (document.n_pool, document.n_validation, document.n_test) == (27, 3, 10)
    (purchase,) = document.purchases
    assert purchase.cost == plan.train_cost and purchase.limits.queries == 5
    assert document.price.price == plan.price.price
    text = run("plan", recipe).out
    assert f"Pool {document.n_pool:,} questions" in text and "up to 5 answers" in text


def test_progress_of_a_timed_plan_is_on_stderr(tiny, run):
    printed = run("plan", tiny, "--time", "--json")
    document = PlanDocument.model_validate_json(printed.out)
    assert document.time.seconds > 0 and document.time.missing == ()
    seconds = sum(stage.seconds or 0 for stage in document.stages)
    assert seconds == pytest.approx(document.time.seconds)
    assert " of " in printed.err


def test_status_as_json_has_the_figures_of_the_text(runs, run):
    printed = run("status", "tiny", "--store", runs, "--json")
    assert printed.err == ""
    document = StatusDocument.model_validate_json(printed.out)
    assert (document.name, document.state, document.remaining) == ("tiny", "done", None)
    text = run("status", "tiny", "--store", runs).out
    for stage in document.stages:
        (line,) = (line for line in text.splitlines() if line.rstrip().endswith(stage.folder))
        assert f"{stage.seconds:.1f}" in line
        if stage.spend_microusd is not None:
            assert f"${stage.spend_microusd / 1e6:.4f}" in line
    assert sum(row.n_attempts for row in document.ledger) > 0
    assert all(f"{row.n_attempts} {row.state}" in text for row in document.ledger)


def test_status_of_an_interrupted_run_has_the_remaining_cost(interrupted, run):
    printed = run("status", "tiny", "--store", interrupted, "--json")
    document = StatusDocument.model_validate_json(printed.out)
    assert document.state == "stopped"
    assert {"done", "unfinished"} == {stage.state for stage in document.stages}
    purchase = next(p for p in document.remaining.purchases if not p.is_evaluation)
    assert purchase.cost.n_reused == 8
    text = run("status", "tiny", "--store", interrupted).out
    assert f"8 of up to {purchase.cost.n_queries} answers" in text


def test_reason_for_an_unknown_remaining_cost_is_on_stderr(interrupted, run):
    (interrupted.parent / "train.jsonl").unlink()
    printed = run("status", "tiny", "--store", interrupted, "--json")
    assert StatusDocument.model_validate_json(printed.out).remaining is None
    assert "Remaining cost unknown" in printed.err and "train.jsonl" in printed.err


def test_report_as_json_is_metrics_json(runs, run):
    printed = run("report", "tiny", "--store", runs, "--json")
    (file,) = runs.glob("report-*/metrics.json")
    assert json.loads(printed.out) == json.loads(file.read_text())
    metrics = Metrics.model_validate_json(printed.out)
    assert "report.html" in printed.err
    text = run("report", "tiny", "--store", runs).out
    assert all(f"{arm.accuracy:.1%}" in text for arm in metrics.arms.values())


@pytest.mark.parametrize("command", [("ledger", "show"), ("ledger",)])
def test_ledger_as_json_has_the_figures_of_the_text(runs, run, command):
    options = ("--ledger", runs.parent / "ledger.db", "--by", "purpose,state")
    printed = run(*command, *options, "--json")
    assert printed.err == ""
    document = SpendDocument.model_validate_json(printed.out)
    assert document.by == ("purpose", "state")
    assert document.total.n_attempts == sum(row.n_attempts for row in document.rows) > 0
    text = run(*command, *options).out
    assert all(f"{row.n_prompt_tokens:,}" in text for row in (*document.rows, document.total))


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "nowhere.yaml"),
        ("status", "nothing"),
        ("report", "nothing"),
        ("ledger", "show", "--ledger", "nowhere.db"),
        ("list", "nothing"),
    ],
)
def test_errors_are_on_stderr_and_stdout_is_empty(command, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run(*command, "--json", code=2)
    assert printed.out == "" and printed.err.startswith("Bad input: ")


def test_names_outside_ascii_are_escaped(task, run):
    for name in ("train.jsonl", "test.jsonl"):
        rows = (task / name).read_text(encoding="utf-8")
        (task / name).write_text(rows.replace("question", "größe"), encoding="utf-8")
    printed = run("plan", task / "task.yaml", "--set", "data.columns.question=größe", "--json")
    assert printed.out.isascii()
    assert "größe" in PlanDocument.model_validate_json(printed.out).fields_sent


def test_published_schema_is_the_schema_of_the_documents():
    """After a change: python -m bridgekd.cli.documents > docs/commands.schema.json"""
    schema = json.loads(SCHEMA.read_text())
    assert schema == build_schema()
    models = (VariantList, PlanDocument, StatusDocument, SpendDocument)
    assert {model.__name__ for model in models} <= set(schema["$defs"])
