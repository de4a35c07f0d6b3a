"""A path of the user that cannot be used is one sentence: folders, files, links, disks, ledgers."""

import json
import sqlite3
from contextlib import chdir

import pytest

from bridgekd.cli.main import main
from bridgekd.errors import InputError
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.io.raw_rows import iter_raw_rows
from bridgekd.io.read_pool import read_few_shot
from bridgekd.io.sources import resolve_data
from bridgekd.ledger.import_answers import import_answers
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.usage_history import read_known_answers, read_known_costs
from bridgekd.sandbox.export import QUICK, export_world
from bridgekd.teacher.transports.replay import read_recording_file
from conftest import write_jsonl
from test_ledger import answer, make_request, reserve

READERS = {
    "data.jsonl": lambda path: list(iter_raw_rows(path)),
    "data.json": lambda path: list(iter_raw_rows(path)),
    "data.csv": lambda path: list(iter_raw_rows(path)),
    "data.tsv.gz": lambda path: list(iter_raw_rows(path)),
    "data.parquet": lambda path: list(iter_raw_rows(path)),
    "instruct.jsonl": read_instructions,
    "recordings.jsonl": read_recording_file,
    "answers.jsonl": lambda path: import_answers(path, path.with_name("l.db")),
}


@pytest.fixture
def refused(capsys, monkeypatch):
    """Run a command that must end with exit code 2; return its message."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(folder, *arguments):
        with chdir(folder):
            assert main([str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_missing_file_or_folder_in_its_place_is_one_sentence(tmp_path, name, is_folder):
    if is_folder:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=name) as error:
        READERS[name](tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


def test_few_shot_file_that_is_removed_is_one_sentence(tmp_path):
    file = write_jsonl(tmp_path / "shots.jsonl", [{"question": "q", "rationale": "r"}])
    source = resolve_data(str(file), tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r"shots\.jsonl: No such file"):
        read_few_shot([source])


@pytest.mark.parametrize("command", [["sandbox", "export"], ["demo", "--quick", "--folder"]])
@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nowhere", "loop", "x" * 300])
def test_sandbox_in_an_unusable_folder_is_refused(tmp_path, refused, command, where):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    text = refused(tmp_path, *command, where)
    assert "Cannot write to" in text and "Traceback" not in text
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["train.jsonl", "models", "models/student", "sandbox.yaml"])
def test_sandbox_over_a_folder_or_file_of_another_kind_is_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff") if "models" in name else path.mkdir()
    with pytest.raises(InputError):
        export_world(tmp_path, **QUICK)


@pytest.mark.parametrize(
    "option",
    [("--port", 99999999), ("--port", -1), ("--seed", "nan")],
)
def test_bad_number_of_the_sandbox_server_is_refused(tmp_path, refused, option):
    assert option[0] in refused(tmp_path, "sandbox", "serve", *option)


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "task.yaml"],
        ["run", "task.yaml", "--yes"],
        ["ledger"],
        ["ledger", "verify"],
        ["ledger", "export", "--to", "x.csv"],
        ["ledger", "import", "answers.jsonl"],
    ],
    ids=" ".join,
)
def test_ledger_that_is_a_loop_of_links_is_refused(task, refused, monkeypatch, command):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234567890")
    (task / "ledger.db").symlink_to("ledger.db")
    request = {"model": "m", "messages": [{"role": "user", "content": "1"}], "max_tokens": 5}
    write_jsonl(task / "answers.jsonl", [{"request": request, "text": "Answer: 1"}])
    assert "ledger.db" in refused(task, *command)


CHANGES = {
    "request": "UPDATE attempts SET request = '{cut'",
    "shape": "UPDATE attempts SET request = '[1, 2]'",
    "messages": """UPDATE attempts SET request = '{"messages": [{"role": 5}]}'""",
    "tokens": "UPDATE attempts SET n_prompt_tokens = 'many'",
    "cost": "UPDATE attempts SET cost_microusd = 'much'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_row_of_another_shape_is_named_wherever_the_ledger_is_read(tmp_path, change):
    path, request = tmp_path / "l.db", make_request()
    with Ledger(path) as ledger:
        answer(ledger)
        key = ledger._connection("read").execute("SELECT key FROM attempts").fetchone()[0]
    damage(path, CHANGES[change])
    reads = [lambda: read_known_answers(path, request), lambda: read_known_costs(path, [key])]
    with pytest.raises(InputError, match=r"l\.db: attempt 1 has broken JSON or another shape"):
        reads[change == "cost"]()
    if change in ("tokens", "cost"):
        with Ledger(path) as ledger, pytest.raises(InputError, match="attempt 1 has broken"):
            ledger.find_answer(key)


@pytest.mark.parametrize("change", ["request", "shape", "messages"])
def test_open_attempt_of_another_shape_is_named(tmp_path, change):
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.record(
            reserve(ledger),
            json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}),
            price=None,
        )
    damage(path, CHANGES[change])
    with pytest.raises(InputError, match=r"attempt 1 has .* ledger verify"), Ledger(path):
        pass


def damage(path, sql):
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()
