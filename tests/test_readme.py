"""The README's short command blocks work as they stand (the two set-up commands apart)."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

from bridgekd.cli import main

README = Path(__file__).parents[1] / "README.md"
DONE_ELSEWHERE = ("make", "export", "bridgekd run", "bridgekd sandbox serve", "bridgekd compare")


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
