"""The command `bridgekd`: it handles signals before it imports the rest, which takes a second."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from bridgekd.cli.output_stream import open_output_streams
from bridgekd.errors import InputError

INTERRUPTED = "Interrupted. Finished work is saved. Run the same command again to resume."


def run_program(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    SIGTERM stops the work as Ctrl-C does; the exit code is 143 then instead of 130.
    """
    with open_output_streams(), interrupt_on_sigterm() as received:
        code = _run_main(arguments)
    return 128 + received[0] if code == 130 and received else code


@contextmanager
def interrupt_on_sigterm() -> Iterator[list[int]]:
    """Let SIGTERM do in the block what Ctrl-C does. Yields the list of the received signals."""
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)  # asyncio has its own handler for it

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _run_main(arguments: Sequence[str] | None) -> int:
    try:
        from bridgekd.cli.main import main

        code = main(arguments)
        if code == 0 and sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:  # during the imports, or before the parser runs
        text, code = INTERRUPTED, 130
    except InputError as exc:  # an output that cannot be written
        text, code = f"Bad input: {exc}", exc.exit_code
    with suppress(InputError):
        print(text, file=sys.stderr)
    return code
