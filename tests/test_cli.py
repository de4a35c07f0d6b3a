"""The command line: a message and an exit code, never a traceback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest

from bridgekd.cli.main import main
from conftest import write_jsonl


@pytest.fixture
def bridgekd(capsys, monkeypatch):
    """Run a command in a folder; return (exit code, stdout and stderr)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*arguments, cwd):
        with chdir(cwd):
            code = main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def refused(bridgekd):
    """Run a command that must end with exit code 2; return its message."""

    def run(folder, *arguments):
        code, text = bridgekd(*arguments, cwd=folder)
        assert code == 2, text
        assert "Traceback" not in text
        return text

    return run


def test_plan_shows_stages_and_cost(task, bridgekd):
    code, text = bridgekd("plan", "task.yaml", cwd=task)
    assert code == 0, text
    for words in ("warm_up", "query_teacher", "to do", "up to 5 answers from api.openai.com", "$"):
        assert words in text
    assert not (task / "runs").exists()


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("budget.queris=3", "Unknown key 'budget.queris'. Did you mean 'queries'"),
        ("budget.queries=0", "A budget of 0 queries buys nothing"),
        ("budget.queries=500", "budget.queries of 500 is above the 27 questions of the pool"),
        ("data.columns.question=qestion", "Did you mean 'question'"),
        ("data.answer_type=multiple_choice", "multiple_choice, and the row has no choices"),
        ("data.train=nowhere.jsonl", "There is no data file"),
        ("data.validation_size=100%", "leaves no pool"),
        ("assistant.model=./nowhere", "There is no model folder"),
        (
            "select.strategy={name: domains, alfa: 1}",
            "strategy domains: unknown option 'alfa'. Did you mean 'alpha'?",
        ),
        ("method=bridg", "Unknown method 'bridg'. Did you mean 'bridge'?"),
        ("select.strategy=hardes", "Unknown strategy 'hardes'. Did you mean 'hardest'?"),
    ],
)
def test_bad_setting_is_refused(task, refused, override, complaint):
    assert complaint in refused(task, "plan", "task.yaml", "--set", override)


def test_broken_row_is_refused_with_its_line(task, refused):
    with open(task / "train.jsonl", "a") as file:
        file.write('{"question": "x", "answer"\n')
    assert "train.jsonl line 31: Broken JSON" in refused(task, "run", "task.yaml", "--yes")


def test_empty_pool_is_refused(task, refused):
    (task / "train.jsonl").write_text("\n")
    assert "has no rows" in refused(task, "run", "task.yaml", "--yes")


def test_duplicate_id_is_refused(task, refused):
    rows = [{"question": "a", "answer": 1, "id": 5}, {"question": "b", "answer": 2, "id": 5}]
    write_jsonl(task / "train.jsonl", rows)
    text = refused(task, "plan", "task.yaml", "--set", "data.columns.id=id")
    assert "line 2: Duplicate id '5', first used at" in text


def test_missing_key_is_refused_before_the_run(task, refused):
    text = refused(task, "run", "task.yaml", "--yes")
    assert "environment variable OPENAI_API_KEY holds no key" in text
    assert not (task / "runs").exists()


def test_nothing_is_sent_without_confirmation(task, refused, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234567890")
    text = refused(task, "run", "task.yaml")
    assert "up to 5 answers from api.openai.com" in text
    assert "Nothing was sent or spent" in text
    assert "canary" not in text
    assert not (task / "runs").exists()


def test_local_gateway_with_a_key_needs_confirmation(task, refused, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234567890")
    text = refused(task, "run", "task.yaml", "--set", "teacher.base_url=http://localhost:9/v1")
    assert "up to 5 answers from localhost" in text


def test_store_that_cannot_be_written_is_refused(tiny, refused):
    (tiny.parent / "runs").write_text("a file where the store should be")
    text = refused(tiny.parent, "run", "tiny.yaml")
    assert "Cannot write to" in text and "Choose another `store`" in text


def test_model_folder_without_weights_is_refused(tiny, refused):
    (tiny.parent / "model" / "model.safetensors").unlink()
    assert "tiny/model cannot be loaded" in refused(tiny.parent, "run", "tiny.yaml")


def test_silent_teacher_stops_the_run_and_it_resumes(tiny, bridgekd):
    arguments = [
        "--set",
        "teacher.base_url=http://127.0.0.1:9/v1",
        "--set",
        "teacher.max_attempts=2",
    ]
    code, text = bridgekd("run", "tiny.yaml", *arguments, cwd=tiny.parent)
    assert code == 3, text
    assert "Traceback" not in text
    assert "run the same command again" in text
    code, text = bridgekd("run", "tiny.yaml", cwd=tiny.parent)  # the recipe's own address works
    assert code == 0, text
    assert "Student, BRIDGE" in text


def test_interrupted_run_resumes(tiny, bridgekd):
    command = [os.path.join(os.path.dirname(sys.executable), "bridgekd"), "run", "tiny.yaml"]
    # A job in the background ignores the signal, and a process that it starts inherits this.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=tiny.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, previous)
    while not list(tiny.parent.glob("runs/warm_up-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130, message
    assert "Interrupted. Finished work is saved" in message
    assert "Traceback" not in message
    assert json.loads((tiny.parent / "runs" / "tiny.json").read_text())["state"] == "interrupted"
    assert bridgekd("run", "tiny.yaml", cwd=tiny.parent)[0] == 0


def test_status_and_report_show_a_run(tiny, bridgekd, refused):
    assert bridgekd("run", "tiny.yaml", cwd=tiny.parent)[0] == 0
    code, text = bridgekd("status", "tiny", cwd=tiny.parent)
    assert code == 0 and "tiny: done" in text and "query_teacher" in text and "answered" in text
    code, text = bridgekd("report", "tiny", cwd=tiny.parent)
    assert code == 0 and "report.html" in text
    assert "There is no run 'other' in runs. Its runs: tiny" in refused(
        tiny.parent, "report", "other"
    )


def test_unknown_option_is_refused(tmp_path, refused):
    assert "No such option" in refused(tmp_path, "plan", "x.yaml", "--nonsense")


def test_the_installed_command_returns_its_exit_code(tmp_path):
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "bridgekd"), "run", "nowhere.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "Cannot read the recipe nowhere.yaml" in done.stderr


def test_template_does_not_replace_a_file(tmp_path, bridgekd, refused):
    assert bridgekd("init", "mine.yaml", cwd=tmp_path)[0] == 0
    assert "mine.yaml exists already" in refused(tmp_path, "init", "mine.yaml")


def test_missing_folder_and_used_port_are_refused(tmp_path, refused):
    assert "Create its folder first" in refused(tmp_path, "init", "nowhere/task.yaml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(tmp_path, "sandbox", "serve", "--port", port)
    assert f"Cannot use port {port}" in message


COMMANDS = ("run", "plan", "compare", "status", "report", "export", "ask", "init", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_s_help_has_an_example(command, tmp_path, bridgekd):
    code, text = bridgekd(command, "--help", cwd=tmp_path)
    assert code == 0 and f"Example: bridgekd {command}" in text


@pytest.fixture
def finished(runs, tmp_path):
    """A copy of the folder of a finished run, which a test may damage."""
    return Path(shutil.copytree(runs.parent, tmp_path / "tiny"))


@pytest.mark.parametrize("loss", ["removed", "emptied"])
def test_empty_ledger_of_a_store_with_purchases_is_a_warning(finished, bridgekd, monkeypatch, loss):
    monkeypatch.setenv("TEACHER_KEY", "canary-key-0123456789")
    arguments = ["plan", "tiny.yaml", "--set", "budget.queries=30%"]
    warning = "has no answers, but runs in"
    assert warning not in bridgekd(*arguments, cwd=finished)[1]
    (finished / "ledger.db").unlink()
    if loss == "emptied":
        (finished / "ledger.db").touch()
    code, text = bridgekd(*arguments, cwd=finished)
    assert code == 0 and text.count(warning) == 1, text
    assert warning not in bridgekd(*arguments, "--set", "ledger=other.db", cwd=finished)[1]
    key = ["--set", "teacher.api_key_env=TEACHER_KEY"]
    code, text = bridgekd("run", *arguments[1:], *key, cwd=finished)
    assert (code, text.count(warning)) == (2, 1), text
    assert "Purchase not confirmed" in text
