"""Read a ledger: its spend by group, and its attempts one by one.

A reader changes nothing, takes no lock and waits for no other process.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridgekd.errors import InputError
from bridgekd.ledger import schema
from bridgekd.ledger.database import check_is_ledger, open_for_reading, translate_sqlite_errors

# The columns to group by. A day is the UTC day on which the attempt was reserved.
GROUPS = {name: name for name in ("run", "purpose", "provider", "model", "state")}
GROUPS["day"] = "substr(created_at, 1, 10)"
# The rule of the column held_microusd, repeated: SQLite does not use a computed column in an index.
_RESERVED_SQL = """CASE WHEN imported THEN 0
                WHEN state IN ('reserved', 'unknown', 'unparsable') THEN reserve_microusd
                ELSE coalesce(cost_microusd, 0) END"""
# The one field whose name differs from its column, because the database format never changes.
_COLUMN_NAMES = {"reserved_microusd": "held_microusd"}
_SUM_SQL = {
    "n_attempts": "count(*)",
    "n_prompt_tokens": "sum(n_prompt_tokens)",
    "n_completion_tokens": "sum(n_completion_tokens)",
    "n_cached_tokens": "sum(n_cached_tokens)",
    "n_reasoning_tokens": "sum(n_reasoning_tokens)",
    "paid_microusd": "sum(CASE WHEN imported THEN 0 ELSE cost_microusd END)",
    "reserved_microusd": f"sum({_RESERVED_SQL})",
    "imported_microusd": "sum(CASE WHEN imported THEN cost_microusd END)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow:
    """The sums of one group of attempts. A column that is not grouped by is "".

    `reserved_microusd` counts against the hard limit, and `paid_microusd` is the billed part of it.
    `imported_microusd` is what imported answers cost where they were purchased.
    """

    run: str = ""
    purpose: str = ""
    provider: str = ""
    model: str = ""
    day: str = ""
    state: str = ""
    n_attempts: int
    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int
    n_reasoning_tokens: int
    paid_microusd: int
    reserved_microusd: int
    imported_microusd: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the ledger."""

    id: int
    key: str
    run: str
    purpose: str
    provider: str
    model: str
    state: str
    n_prompt_tokens: int | None
    n_completion_tokens: int | None
    n_cached_tokens: int
    n_reasoning_tokens: int
    reserve_microusd: int
    cost_microusd: int | None
    reserved_microusd: int
    created_at: str
    settled_at: str | None
    batch: str | None
    imported: int
    request_id: str | None
    request: str
    raw_response: str | None
    price: str | None


def sum_spend(
    path: str | Path, by: Sequence[str] = ("run", "purpose", "model", "state")
) -> tuple[SpendRow, ...]:
    """Return the spend of a ledger, grouped by any of `GROUPS` and sorted.

    The result is empty if there is no ledger yet.
    """
    with open_snapshot(Path(path), missing_ok=True) as db:
        rows = db.execute(build_spend_sql(by)).fetchall()
    # Sorted here, because SQLite would sort a million attempts before it adds them up.
    groups = [SpendRow(**dict(zip([*by, *_SUM_SQL], row, strict=True))) for row in sorted(rows)]
    return tuple(group for group in groups if group.n_attempts)


def build_spend_sql(by: Sequence[str]) -> str:
    """Return the SQL of `sum_spend`. SQLite needs only the index attempts_spent for it."""
    groups = [GROUPS[name] for name in by]
    totals = [f"coalesce({total}, 0)" for total in _SUM_SQL.values()]
    grouped = f"GROUP BY {', '.join(groups)}" if by else ""
    return f"SELECT {', '.join(groups + totals)} FROM attempts {grouped}"


def sum_rows(rows: Sequence[SpendRow]) -> SpendRow:
    """Return the sums over all rows."""
    return SpendRow(**{name: sum(getattr(row, name) for row in rows) for name in _SUM_SQL})


def iter_attempts(db: sqlite3.Connection) -> Iterator[Attempt]:
    """Yield the attempts in the order of their ids, one at a time."""
    names = ", ".join(_COLUMN_NAMES.get(name, name) for name in Attempt.__slots__)
    for row in db.execute(f"SELECT {names} FROM attempts ORDER BY id"):
        yield Attempt(*row)


def get_last_id(db: sqlite3.Connection) -> int:
    """Return the highest id. It is the number of attempts, because none is ever deleted."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM attempts").fetchone()[0])


@contextmanager
def open_snapshot(path: Path, *, missing_ok: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees the ledger as it is now, without later changes.

    Raises InputError if there is no file, unless `missing_ok`: then the ledger is empty.
    """
    if _exists(path) or not missing_ok:
        check_exists(path)
        with translate_sqlite_errors(path), closing(open_for_reading(path)) as db:
            check_is_ledger(db, path)
            if schema.get_version(db):
                db.execute("BEGIN")
                yield db
                return
    # There is no file, or the process that created it was killed before it created the tables.
    with schema.open_empty() as empty:
        yield empty


def _exists(path: Path) -> bool:
    """Return whether there is a file. Raises InputError for a loop of links."""
    with translate_sqlite_errors(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def check_exists(path: Path) -> None:
    """Raise InputError if there is no ledger at `path`."""
    if not path.is_file():
        raise InputError(f"There is no ledger at {path}. Name another one with --ledger FILE.")
