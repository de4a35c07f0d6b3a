"""The files of the page on adding a method work: plan, a comparison, and the named options."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest

from bridgekd import api
from bridgekd.cli.main import main
from bridgekd.errors import InputError

PAGE = Path(__file__).parents[1] / "docs" / "add-a-method.md"
FILE = re.compile(r'```python title="([^"]+)"\n(.*?)```', re.DOTALL)


@pytest.fixture
def recipe(tiny):
    """A small recipe, task.yaml, beside the files of the page."""
    for name, code in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (tiny.parent / name).write_text(code, encoding="utf-8")
    return tiny.rename(tiny.with_name("task.yaml"))


def test_commands_of_the_page_work(recipe, capsys):
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    with chdir(recipe.parent):
        for program, *arguments in commands:
            assert program == "bridgekd" and main(arguments) == 0
    printed = capsys.readouterr().out
    for title in ("Student, hard direct", "Student, focal loss", "Student, direct"):
        assert title in printed


def test_options_of_the_files_change_what_depends_on_them(recipe):
    def plan(*overrides):
        return {a.path.name for a in api.plan(recipe, overrides=overrides).stages}

    method = "method={file: focal_direct.py, gamma: %s}"
    changed = {name.partition("-")[0] for name in plan(method % 1) ^ plan(method % 2)}
    assert changed == {"train_student", "predict", "evaluate", "report"}
    strategy = "select.strategy={file: middle.py, quantile: %s}"
    changed = {name.partition("-")[0] for name in plan(strategy % 0.5) ^ plan(strategy % 0.7)}
    assert {"select_questions", "query_teacher"} <= changed and "score_pool" not in changed


def test_unknown_option_of_a_file_is_refused(recipe):
    with pytest.raises(InputError, match="Did you mean 'gamma'"):
        api.plan(recipe, overrides=["method={file: focal_direct.py, gama: 2}"])
