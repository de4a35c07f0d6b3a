"""The README's short command blocks work as they stand (the two set-up commands apart)."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

from ruamel.yaml import YAML

from bridgekd.cli.main import main
from bridgekd.recipe import TeacherOptions

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DONE_ELSEWHERE = ("make", "export", "bridgekd run", "bridgekd sandbox serve", "bridgekd compare")
DONE_ELSEWHERE += ("bridgekd plan my-task.yaml --pilot",)  # it buys: test_pilot.py
DONE_ELSEWHERE += ("bridgekd ledger",)  # it needs a ledger with something in it
DONE_ELSEWHERE += ("bridgekd export", "bridgekd ask")  # they need a finished run: test_export.py
DONE_ELSEWHERE += ("bridgekd report", ". .venv")  # the same: test_cli.py


def commands():
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL):
        for line in block.splitlines():
            command = line.partition("#")[0].strip()
            if command and not command.startswith(DONE_ELSEWHERE):
                yield command


def test_every_short_command_of_the_readme_works(tmp_path):
    found = list(commands())
    assert len(found) >= 3
    with chdir(tmp_path):
        for command in found:
            program, *arguments = shlex.split(command)
            assert program == "bridgekd"
            assert main(arguments) == 0, command


def test_every_teacher_in_the_documents_is_one():
    """Each block of docs/teachers.md loads; those of hosted models that are asked by name alone
    have a published price.
    """
    text = (ROOT / "docs" / "teachers.md").read_text()
    yaml = YAML(typ="safe", pure=True)
    blocks = "".join(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    teachers = [yaml.load(f"teacher:{part}")["teacher"] for part in blocks.split("teacher:")[1:]]
    assert len(teachers) > 10
    for settings in teachers:
        assert TeacherOptions(**settings).list_price is not None, settings
