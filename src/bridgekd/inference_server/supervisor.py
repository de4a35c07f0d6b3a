"""Runs a server and ends it, with all its children, once nobody wants it any more.

A program of its own, over the standard library alone: bridgekd starts it with a pipe as its input.
When that pipe is closed, by bridgekd or, because bridgekd was killed, by the system, the server's
process group is asked to end, and killed if it does not. Its exit code is the server's.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 10.0  # from the request to end until the kill


def main(command: list[str]) -> int:
    """Runs `command` until it ends or the input does."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_stop_at_eof, args=(server.pid,), daemon=True).start()
    code = server.wait()
    _signal(server.pid, signal.SIGKILL)  # its children, if any outlived it
    return code if code >= 0 else 128 - code


def _stop_at_eof(group: int) -> None:
    while os.read(0, 1024):
        pass
    _signal(group, signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    _signal(group, signal.SIGKILL)


def _signal(group: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, what)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to bridgekd, which then lets go
    sys.exit(main(sys.argv[1:]))
