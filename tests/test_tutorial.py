"""The commands and the notebook of the tutorial work as they are written.

Commands run on fewer questions and with one update per training; the teacher server runs in this
process.
"""

import os
import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from bridgekd.cli.main import main
from faulty_teacher import run_teacher_server

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
N_ROWS = {"train.jsonl": 34, "test.jsonl": 4, "instruct.jsonl": 8}
QUICK = [
    *(f"{part}.updates=1" for part in ("student.train", "student.instruction_train")),
    *(f"assistant.{part}.updates=1" for part in ("train", "warm_up_train")),
    *(f"{part}.n_evaluations=1" for part in ("student.train", "assistant.train")),
    "data.validation_size=4", "evaluate.teacher_queries=2", "student.max_new_tokens=8",
    "assistant.max_new_tokens=60", "check.filter=all",
]  # fmt: skip
USES_A_RECIPE = ("run", "plan", "compare")
NOT_HERE = ("pip install", "bridgekd sandbox serve")  # the environment; the fixture's server


def list_commands(page):
    """The commands in the shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(NOT_HERE)]


def shorten_world(folder):
    """Keep the first rows of every file of the exported sandbox."""
    for name, n_rows in N_ROWS.items():
        rows = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(rows[:n_rows]), encoding="utf-8")


def test_commands_of_tutorial_work(tmp_path, capsys):
    commands = list_commands(DOCS / "tutorial.md")
    assert len(commands) >= 10
    with chdir(tmp_path), run_teacher_server(wrong_rate=0.0) as teacher:
        sets = [f"--set={pair}" for pair in (*QUICK, f"teacher.base_url={teacher.base_url}")]
        for command in commands:
            program, *arguments = shlex.split(command)
            extra = sets if arguments[0] in USES_A_RECIPE else []
            assert program == "bridgekd" and main([*arguments, *extra]) == 0, command
            if arguments[:2] == ["sandbox", "export"]:
                shorten_world(tmp_path / "world")
    assert (tmp_path / "my-student" / "model.safetensors").is_file()
    assert "Student, direct" in capsys.readouterr().out


@pytest.mark.timeout(600)
def test_notebook_of_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shutil.copy(DOCS / "tutorial.ipynb", tmp_path)
    notebook = nbformat.read(tmp_path / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    text = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "Student, BRIDGE" in text and "budget.querys" in text
