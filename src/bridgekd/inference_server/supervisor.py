"""Runs a server and ends it, with all its children, when bridgekd ends.

A program that uses the standard library only. bridgekd starts it with a pipe as its input. bridgekd
closes the pipe, or the system does after bridgekd was killed. Then the server's process group gets
SIGTERM, and SIGKILL if it does not end. The exit code is the server's.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 10.0  # from SIGTERM to SIGKILL


def main(command: list[str]) -> int:
    """Run `command` until it ends or the input does; return its exit code."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_stop_at_eof, args=(server.pid,), daemon=True).start()
    code = server.wait()
    _send_signal(server.pid, signal.SIGKILL)  # to its children, if any are left
    return code if code >= 0 else 128 - code


def _stop_at_eof(group: int) -> None:
    while os.read(0, 1024):
        pass
    _send_signal(group, signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    _send_signal(group, signal.SIGKILL)


def _send_signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to bridgekd, which closes the pipe
    sys.exit(main(sys.argv[1:]))
