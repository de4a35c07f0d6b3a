"""Standard output and standard error that take any character, and errors that are one sentence."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from bridgekd.errors import InputError


class OutputStream(io.TextIOWrapper):
    """A standard stream. A character that its encoding does not have is written as `\\xe9`.

    Raises InputError if its disk is full. A closed pipe stays a BrokenPipeError.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.isatty(),
        )
        self._name = "standard error" if stream is sys.stderr else "standard output"

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as exc:
            raise self._translate(exc) from exc

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as exc:
            raise self._translate(exc) from exc

    def release(self) -> None:
        """Give the buffer back, without what could not be written: Python would try it again."""
        try:
            self.flush()
        except (InputError, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        self.detach()

    def _translate(self, exc: OSError) -> Exception:
        if isinstance(exc, BrokenPipeError):
            return exc
        return InputError(
            f"Cannot write to {self._name}: {exc.strerror}. Redirect it to another file. What is "
            "finished is saved."
        )


@contextmanager
def open_output_streams() -> Iterator[None]:
    """Make both standard streams an `OutputStream` in the block. One that is closed stays so."""
    earlier = sys.stdout, sys.stderr
    streams = [None if stream is None else OutputStream(stream) for stream in earlier]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            if stream is not None:
                stream.release()
        sys.stdout, sys.stderr = earlier
