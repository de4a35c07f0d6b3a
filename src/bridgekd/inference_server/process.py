"""Starts a server for a stage, and stops it with the stage in every case."""

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

from bridgekd.api_client.redact_key import KeyRedactor
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.inference_server import supervisor
from bridgekd.messages import format_value

POLL_S = 0.2
N_LOG_LINES, N_LOG_CHARACTERS = 5, 600
STOP_S = supervisor.GRACE_S + 5  # the supervisor's own limit comes first


def fill_placeholders(command: str, values: Mapping[str, str]) -> list[str]:
    """Return the words of a command with every {name} of `values` replaced; other braces stay.

    >>> fill_placeholders("vllm serve {model} --x '{}'", {"model": "/a b"})
    ['vllm', 'serve', '/a b', '--x', '{}']
    """
    words = shlex.split(command)
    for name, value in values.items():
        words = [word.replace("{" + name + "}", value) for word in words]
    return words


def find_program(command: list[str], folder: Path) -> str:
    """Return the path of a command's program; a name with a slash is relative to `folder`.

    Raises InputError if there is none.
    """
    name = command[0]
    program = shutil.which(str(folder.resolve() / name) if os.sep in name else name)
    if program is None:
        raise InputError(
            f"assistant.server.command: no program {format_value(name)} here. Install it, or set "
            "its path."
        )
    return program


def find_free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
    """Start `command` in `folder`, wait until `is_up`, and stop it and its children at the end.

    Yields a function that returns why the server has ended; None while it runs. The server's output
    goes to `log`; messages quote it without `secret`. Raises InputError if the program does not
    exist, ServerUnavailableError if it ends or does not answer within `timeout_s`.
    """
    program = find_program(command, folder)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, supervisor.__file__, program, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )

    def describe_log() -> str:
        return _describe_last_lines(log, KeyRedactor(secret).redact)

    def get_exit_reason() -> str | None:
        code = process.poll()
        return None if code is None else f"it ended with code {code}; {describe_log()}"

    try:
        end = time.monotonic() + timeout_s
        while not is_up():
            if (reason := get_exit_reason()) is not None:
                raise ServerUnavailableError(f"The assistant's server did not start: {reason}")
            if time.monotonic() > end:
                raise ServerUnavailableError(
                    f"The assistant's server did not answer within {timeout_s:g} s; "
                    f"{describe_log()}. If it needs longer, raise "
                    f"assistant.server.startup_timeout_s."
                )
            time.sleep(POLL_S)
        yield get_exit_reason
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _describe_last_lines(log: Path, redact: Callable[[str], str]) -> str:
    text = redact(log.read_text(errors="replace"))  # before a cut leaves a part of the key
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = " | ".join(lines[-N_LOG_LINES:])[-N_LOG_CHARACTERS:]
    return f"its last lines in {log}: {text}" if text else f"it printed nothing to {log}"
