"""A server that is started for a stage and stopped with it, whatever happens in between."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server import supervisor

POLL_S = 0.2
KEY_MARK = "[key]"
N_LOG_LINES, N_LOG_CHARACTERS = 5, 600
STOP_S = supervisor.GRACE_S + 5  # the keeper's own limit comes first


def fill_placeholders(command: str, parts: Mapping[str, str]) -> list[str]:
    """The words of a command, every {part} of them replaced; other braces stay."""
    words = shlex.split(command)
    for part, value in parts.items():
        words = [word.replace("{" + part + "}", value) for word in words]
    return words


def find_program(command: list[str], folder: Path) -> str:
    """The program of a command; one with a slash is relative to `folder`. InputError where there is
    none.
    """
    name = command[0]
    program = shutil.which(str(folder.resolve() / name) if os.sep in name else name)
    if program is None:
        raise InputError(
            f"assistant.server.command: there is no program {command[0]!r} here; install it, or "
            "give its path"
        )
    return program


def find_free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def run_server(
    command: list[str],
    *,
    log: Path,
    folder: Path,
    is_up: Callable[[], bool],
    timeout_s: float,
    secret: str = "",
) -> Iterator[Callable[[], str | None]]:
    """Starts `command` in `folder`, waits until `is_up`, and stops it and its children at the end.

    Gives a function that says why the server is no more, None while it runs. What it prints goes
    to `log`, and from there into messages, without `secret`. Raises InputError where there is no
    such program, ServerUnavailableError where it ends or stays silent for `timeout_s`.
    """
    program = find_program(command, folder)
    with open(log, "wb") as printed:
        kept = subprocess.Popen(
            [sys.executable, supervisor.__file__, program, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )

    def said() -> str:
        lines = _last_lines(log)
        return lines.replace(secret, KEY_MARK) if len(secret) >= 8 else lines

    def gone() -> str | None:
        code = kept.poll()
        return None if code is None else f"it ended with code {code}; {said()}"

    try:
        _wait_until_ready(gone, is_up, timeout_s, said)
        yield gone
    finally:
        assert kept.stdin is not None
        kept.stdin.close()
        try:
            kept.wait(STOP_S)
        except subprocess.TimeoutExpired:
            kept.kill()


def _wait_until_ready(
    gone: Callable[[], str | None],
    is_up: Callable[[], bool],
    timeout_s: float,
    said: Callable[[], str],
) -> None:
    end = time.monotonic() + timeout_s
    while not is_up():
        if (why := gone()) is not None:
            raise ServerUnavailableError(f"the assistant's server did not start: {why}")
        if time.monotonic() > end:
            raise ServerUnavailableError(
                f"the assistant's server did not answer within {timeout_s:g} s; "
                f"{said()}; raise assistant.server.startup_timeout_s if it needs longer"
            )
        time.sleep(POLL_S)


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = " | ".join(lines[-N_LOG_LINES:])[-N_LOG_CHARACTERS:]
    return f"its last lines in {log}: {said}" if said else f"it printed nothing to {log}"
