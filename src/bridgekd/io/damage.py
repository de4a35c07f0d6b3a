"""Errors of reading a file of the store become one sentence that names the folder to remove."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from bridgekd.errors import InputError


@contextmanager
def translate_damage(file: Path) -> Iterator[None]:
    """Turn whatever a damaged, foreign or missing file raises in the block into an InputError.

    Keep the block to the reading of `file`: its errors are those of a program mistake, too.
    """
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError, EOFError) as exc:
        text = exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else str(exc).strip()
        reason = (text.splitlines() or [type(exc).__name__])[0][:200]
        raise InputError(
            f"{file} is damaged, missing or of another version ({reason}). Remove the folder "
            f"{file.parent} and run the recipe again. Paid answers are in the ledger."
        ) from exc
