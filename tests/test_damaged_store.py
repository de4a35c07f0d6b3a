"""A damaged store is one sentence that says which folder to remove, for every command."""

import json
import os
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from bridgekd.cli.main import main
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.lazy_rows import open_rows
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.read_pool import read_answer_type
from bridgekd.io.row_files import read_appended_jsonl, read_column, read_rows, write_rows
from bridgekd.records import Completion, Example, Pick
from bridgekd.stages.pilot import read_measurements
from bridgekd.stages.select_questions import load_embeddings

OVERRIDES = ("teacher.api_key_env=TEACHER_KEY", "student.lora={r: 4}")
SET = [x for override in OVERRIDES for x in ("--set", override)]
COMPARE = ["compare", "tiny.yaml", "--arms", "bridge,direct", "--yes", *SET]
COMMANDS = {
    "status": ["status", "tiny"],
    "report": ["report", "tiny"],
    "export": ["export", "tiny", "--to", "model-out"],
    "ask": ["ask", "tiny", "Where is it?"],
    "plan": ["plan", "tiny.yaml", "--arms", "bridge,direct", *SET],
    "run": COMPARE,
}


def cut(file):
    rewrite(file, file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    rewrite(file, b"")


def fill_with_braces(file):
    rewrite(file, b"{}")


def fill_with_binary(file):
    rewrite(file, bytes(range(256)) * 4)


def remove(file):
    file.unlink()


def use_other_rows(file):
    file.unlink()
    write_rows(file, Pick, [])


def rewrite(file, content):
    """Replace a file that is a hard link to the one of all tests."""
    file.unlink()
    file.write_bytes(content)


DAMAGES = (cut, empty, fill_with_braces, fill_with_binary, remove)


@pytest.fixture
def folder(runs, tmp_path, monkeypatch):
    """A finished run, of which only the evaluation and the report are still to be made."""
    monkeypatch.setenv("TEACHER_KEY", "canary-key-0123456789")
    return Path(shutil.copytree(runs.parent, tmp_path / "tiny", copy_function=os.link))


def run_all(folder, capsys, names=tuple(COMMANDS)):
    """Return the output of every command that exits with 2. No command may raise."""
    failed = {}
    for name, arguments in ((name, COMMANDS[name]) for name in names):
        if name == "run":  # so that it reads what the others made
            for artifact in (folder / "runs").glob("report-*"):
                shutil.rmtree(artifact)
        with chdir(folder):
            code = main(arguments)
        text = "".join(capsys.readouterr()).replace("\n", " ")
        assert code in (0, 2), f"{name}: {text}"
        if code:
            failed[name] = text
    return failed


@pytest.mark.parametrize(
    ("pattern", "damage", "readers"),
    [
        ("train_student-*/manifest.json", cut, {"status", "export", "ask", "run"}),
        ("check_rationales-*/manifest.json", fill_with_braces, {"status", "export", "ask", "run"}),
        ("train_assistant-*/manifest.json", remove, {"export", "ask", "run"}),
        ("load_pool-*/pool.parquet", cut, {"plan", "run", "export"}),
        ("load_pool-*/pool.parquet", remove, {"plan", "run", "export"}),
        ("load_pool-*/validation.parquet", use_other_rows, {"plan"}),
        ("query_teacher-*/completions.parquet", fill_with_binary, {"run"}),
        ("check_rationales-*/rationales.parquet", use_other_rows, {"run", "export"}),
        ("select_questions-*/ranking.parquet", empty, {"run"}),
        ("evaluate-*/metrics.json", cut, {"run"}),
        ("report-*/metrics.json", fill_with_braces, {"report"}),
        ("report-*/metrics.json", remove, {"report"}),
        ("score_pool-*/embeddings.npy", cut, {"run"}),
        ("train_student-*/training_log.jsonl", cut, {"run"}),
        ("train_student-*/adapter_model.safetensors", cut, {"export", "ask"}),
        ("train_student-*/adapter_config.json", fill_with_braces, {"export", "ask"}),
    ],
)
def test_damaged_file_is_one_sentence_in_every_command(folder, capsys, pattern, damage, readers):
    for file in (folder / "runs").glob(pattern):
        damage(file)
    failed = run_all(folder, capsys)
    assert readers <= failed.keys(), failed
    for text in failed.values():
        assert pattern.partition("*")[0] in text, text
        assert "emove" in text or "again" in text, text


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_run_file_is_one_sentence_in_every_command(folder, capsys, damage):
    damage(folder / "runs" / "tiny.json")
    names = ["status", "report", "export", "ask"]
    assert list(run_all(folder, capsys, names)) == names
    with chdir(folder):
        assert main(COMMANDS["plan"]) == 0
        assert main(COMPARE) == 0  # it writes the file again
        assert main(COMMANDS["status"]) == 0


def test_removed_store_is_one_sentence_in_every_command(folder, capsys):
    shutil.rmtree(folder / "runs")
    names = ["status", "report", "export", "ask"]
    assert list(run_all(folder, capsys, names)) == names


READERS = {
    "pool.parquet": lambda file: read_rows(file, Example),
    "ids.parquet": lambda file: read_column(file, Example, "id"),
    "lazy.parquet": lambda file: list(open_rows(file, Example)),
    "metrics.json": lambda file: read_metrics(file.parent),
    "pilot.json": lambda file: read_measurements(Artifact("evaluate_pilot", "", file.parent)),
    "task.json": lambda file: read_answer_type(Artifact("load_pool", "", file.parent)),
    "manifest.json": lambda file: Artifact("load_pool", "", file.parent).manifest,
    "embeddings.npy": load_embeddings,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_reader_names_the_folder_of_a_damaged_file(tmp_path, name, damage):
    file = tmp_path / "load_pool-0123" / name
    file.parent.mkdir()
    if name.endswith("parquet"):
        write_rows(file, Example, [Example("a", "b"), Example("c", "d")])
    elif name.endswith("npy"):
        np.save(file, np.zeros((20, 3), dtype=np.float32))
    else:
        file.write_text(json.dumps({"answer_type": {"name": "text"}}))
    damage(file)
    with pytest.raises(InputError, match=r"load_pool-0123") as error:
        READERS[name](file)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("read", [read_rows, lambda f, t: read_column(f, t, "id"), open_rows])
def test_rows_of_another_schema_are_refused(tmp_path, read):
    write_rows(tmp_path / "rows.parquet", Completion, [])
    with pytest.raises(InputError, match=r"its columns are not those of Example\)\. Remove"):
        read(tmp_path / "rows.parquet", Example)


def test_damaged_group_of_rows_is_refused_when_it_is_read(tmp_path):
    file = tmp_path / "rows.parquet"
    write_rows(file, Example, [Example(str(i), f"question {i}" * 20) for i in range(2000)])
    content = bytearray(file.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    file.write_bytes(content)
    rows = open_rows(file, Example)
    with pytest.raises(InputError, match=r"rows\.parquet is damaged"):
        list(rows)


@pytest.mark.parametrize("damage", [fill_with_binary, lambda file: rewrite(file, b'{"a": 1\n')])
def test_damaged_progress_is_named(tmp_path, damage):
    file = tmp_path / "texts.jsonl"
    file.write_text("[]\n")
    damage(file)
    with pytest.raises(InputError, match=r"texts\.jsonl is damaged"):
        read_appended_jsonl(file)
