"""Export a ledger to a file: a table without texts (CSV), or everything (JSON lines).

It reads one attempt at a time, so a ledger of any size needs little memory. The file is complete
or not there.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bridgekd.errors import DiskFullError, InputError
from bridgekd.io.disk import FULL_DISK_ERRORS, open_atomic
from bridgekd.ledger.spend import Attempt, get_last_id, iter_attempts, open_snapshot
from bridgekd.ledger.sql import parse_price, translate_row_errors
from bridgekd.progress import Progress, ignore_progress

COLUMNS = tuple(
    name for name in Attempt.__slots__ if name not in ("request", "raw_response", "price")
)
PROGRESS_EVERY = 2000  # attempts between two progress reports


def export_ledger(
    path: Path, to: Path, *, force: bool = False, progress: Progress = ignore_progress
) -> int:
    """Write every attempt of the ledger at `path` to a `.csv` or `.jsonl` file.

    Takes no lock. Returns the number of attempts. Raises InputError if the file exists, unless
    `force`, if it is the ledger itself, and for an attempt with broken JSON.
    """
    if to.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"Cannot export to {to}: the name must end in .csv or .jsonl.")
    if to.exists() and path.exists() and to.samefile(path):
        raise InputError(f"{to} is the ledger itself. Name another file.")
    if to.exists() and not force:
        raise InputError(f"{to} exists already. Name another file, or pass --force to replace it.")
    is_csv, n_done = to.suffix.lower() == ".csv", 0
    with open_snapshot(path) as db, _open_output(to) as file:
        table, total = csv.writer(file, lineterminator="\n"), get_last_id(db)
        if is_csv:
            table.writerow(COLUMNS)
        for n_done, attempt in enumerate(iter_attempts(db), start=1):
            if is_csv:
                table.writerow([_format_cell(getattr(attempt, name)) for name in COLUMNS])
            else:
                file.write(_format_json_line(attempt, path))
            if n_done % PROGRESS_EVERY == 0:
                progress("Export", n_done, total)
        progress("Export", n_done, n_done)
    return n_done


def _format_cell(value: object) -> object:
    """Return a value for a cell. A spreadsheet would compute a text that starts like a formula."""
    starts_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts_formula else value


def _format_json_line(attempt: Attempt, path: Path) -> str:
    row = {name: getattr(attempt, name) for name in COLUMNS}
    with translate_row_errors(attempt.id, f"Ledger {path}"):
        price = parse_price(attempt.price)
        row |= {
            "imported": bool(attempt.imported),
            "request": json.loads(attempt.request),
            "response": attempt.raw_response,
            "price": None if price is None else price.model_dump(exclude_none=True),
        }
    return json.dumps(row, separators=(",", ":")) + "\n"


@contextmanager
def _open_output(to: Path) -> Iterator[TextIO]:
    try:
        with open_atomic(to) as file:
            yield file
    except OSError as exc:
        error = DiskFullError if exc.errno in FULL_DISK_ERRORS else InputError
        raise error(
            f"Cannot write {to}: {exc.strerror}. The ledger is unchanged. Name a file in an "
            "existing, writable folder with enough free space."
        ) from exc
