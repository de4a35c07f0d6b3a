"""Brings a ledger out to a file: a table for people (CSV), or everything (JSONL).

What this keeps true: one attempt at a time, so that the largest ledger needs no memory; the file
is whole or not there.
"""

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bridgekd.errors import DiskFullError, InputError
from bridgekd.ledger import sql
from bridgekd.ledger.spend import Attempt, get_last_id, iter_attempts, open_snapshot
from bridgekd.progress import Progress, ignore_progress

TEXT_COLUMNS = ("request", "raw_response", "price")
COLUMNS = tuple(name for name in Attempt.__slots__ if name not in TEXT_COLUMNS)
PROGRESS_EVERY = 2000  # attempts between two signs of progress


def export_ledger(
    path: Path, to: Path, *, force: bool = False, progress: Progress = ignore_progress
) -> int:
    """Writes every attempt of the ledger at `path` to a `.csv` (no texts) or `.jsonl` file and
    returns how many. Takes no lock; InputError where the file is there already, unless forced.
    """
    kind = to.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise InputError(
            f"{to} ends in neither .csv nor .jsonl; say which by the name of the file."
        )
    if to.exists() and not force:
        raise InputError(f"{to} is there already; name another file, or add --force to replace it.")
    with open_snapshot(path) as db, _open_atomic(to) as file:
        write = _csv_writer(file) if kind == ".csv" else _jsonl_writer(file, path)
        total, done = get_last_id(db), 0
        for done, attempt in enumerate(iter_attempts(db), start=1):
            write(attempt)
            if done % PROGRESS_EVERY == 0:
                progress("Export", done, total)
        progress("Export", done, done)
    return done


def _csv_writer(file: TextIO) -> Callable[[Attempt], None]:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)

    def write(attempt: Attempt) -> None:
        table.writerow([getattr(attempt, name) for name in COLUMNS])

    return write


def _jsonl_writer(file: TextIO, path: Path) -> Callable[[Attempt], None]:
    def write(attempt: Attempt) -> None:
        try:
            row = _row(attempt)
        except ValueError as exc:
            raise InputError(
                f"Ledger {path}: attempt {attempt.id} holds broken JSON ({exc}); "
                f"`bridgekd ledger verify` says what else is wrong."
            ) from exc
        file.write(json.dumps(row, separators=(",", ":")) + "\n")

    return write


def _row(attempt: Attempt) -> dict[str, Any]:
    row = {name: getattr(attempt, name) for name in COLUMNS}
    row["imported"] = bool(attempt.imported)
    row["request"] = json.loads(attempt.request)
    row["response"] = attempt.raw_response
    price = sql.parse_price(attempt.price)
    row["price"] = None if price is None else price.model_dump(exclude_none=True)
    return row


@contextmanager
def _open_atomic(to: Path) -> Iterator[TextIO]:
    """A file to write to that takes its name only when all of it is on the disk."""
    partial = to.with_name(f"{to.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, to)
    except OSError as exc:
        kind = DiskFullError if exc.errno in (errno.ENOSPC, errno.EDQUOT) else InputError
        raise kind(
            f"{to} cannot be written: {exc.strerror}; the ledger is untouched. Name a file where "
            f"there is room, in a folder that is there and may be written."
        ) from exc
    finally:
        partial.unlink(missing_ok=True)
