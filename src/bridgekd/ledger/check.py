"""Proves a ledger: that every attempt still says what its own texts say, and that all add up.

The one idea: everything derived is derived again, by the functions that derived it first: the key
from the request, the state and the bill from the raw response and the price, what is held from
the state, the total from the attempts. Reads one attempt at a time and changes nothing.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgekd.config import Price
from bridgekd.core.calls import call_key
from bridgekd.core.elsewhere import bill_elsewhere
from bridgekd.core.replies import Bill, Reply, bill_of, read_reply
from bridgekd.ledger import schema
from bridgekd.ledger.attempts import FINAL, held, most_of
from bridgekd.ledger.views import Attempt, attempts_in, last_id, reading
from bridgekd.progress import Progress, silent

SHOWN = 10  # ids of a finding; the rest is a number
EVERY = 2000  # attempts between two signs of progress
HELD = ("reserved", "unknown", "unparsable")  # at their reserve


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so of `n` attempts; `ids` are the first of them. About the file as a whole
    it has none.
    """

    what: str
    n: int = 0
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """What a check came to. `findings` must not be; `notes` may, and are worth knowing."""

    n_attempts: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]


class _Findings:
    """Findings as they come up, each with its first ids."""

    def __init__(self) -> None:
        self._n: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}

    def add(self, what: str, attempt_id: int | None = None) -> None:
        ids = self._ids.setdefault(what, [])
        self._n[what] = self._n.get(what, 0) + (attempt_id is not None)
        if attempt_id is not None and len(ids) < SHOWN:
            ids.append(attempt_id)

    def all(self) -> tuple[Finding, ...]:
        return tuple(Finding(what, n, tuple(self._ids[what])) for what, n in self._n.items())


def verify(path: Path, progress: Progress = silent) -> Proof:
    """Checks the file, then every attempt, then what they add up to. Takes no lock; sees the ledger
    as it was when the check began.
    """
    findings, notes = _Findings(), _Findings()
    with reading(path) as db:
        progress("Check the file", 0, 1)
        for what in _damage(db):
            findings.add(what)
        progress("Check the file", 1, 1)
        if found := findings.all():  # what a damaged file says of its attempts means nothing
            return Proof(0, found, ())
        with schema.open_empty() as empty:
            for kind, name in sorted(_rules(empty) - _rules(db)):
                findings.add(f"the {kind} {name} is gone")
        n_attempts, n_held = _each(db, findings, notes, progress)
        if held(db) != n_held:
            findings.add(f"the total held is {held(db):,} micro-dollars, but of all {n_held:,}")
        for attempt_id in _finals_too_many(db):
            findings.add("another attempt at the same call is final too", attempt_id)
    return Proof(n_attempts, findings.all(), notes.all())


def _each(
    db: sqlite3.Connection, findings: _Findings, notes: _Findings, progress: Progress
) -> tuple[int, int]:
    """Checks every attempt; returns how many there are and what they hold together."""
    total, last, n_attempts, n_held = last_id(db), 0, 0, 0
    for n_attempts, attempt in enumerate(attempts_in(db), start=1):
        if attempt.id != last + 1:  # ids have no gaps: one that is rolled back is given again
            findings.add("what stood just before was deleted", attempt.id)
        last, n_held = attempt.id, n_held + attempt.held_microusd
        for what in wrong_with(attempt):
            findings.add(what, attempt.id)
        for what in remarkable_in(attempt):
            notes.add(what, attempt.id)
        if n_attempts % EVERY == 0:
            progress("Verify", n_attempts, total)
    progress("Verify", n_attempts, n_attempts)
    return n_attempts, n_held


def wrong_with(attempt: Attempt) -> Iterator[str]:
    """What one attempt says that its own texts deny."""
    expected = 0 if attempt.imported else _held(attempt)
    if attempt.held_microusd != expected:
        yield "held is not what the state implies"
    if (attempt.settled_at is None) != (attempt.state == "reserved"):
        yield "the time of settling does not fit the state"
    request = _json(attempt.request)
    if not isinstance(request, dict) or _key(request) != attempt.key:
        yield "the key is not that of the stored request"
        return
    if (request.get("provider"), request.get("model")) != (attempt.provider, attempt.model):
        yield "provider or model are not those of the stored request"
    yield from _wrong_with_answer(attempt, request)


def remarkable_in(attempt: Attempt) -> Iterator[str]:
    """What one attempt says that a person may want to know."""
    if attempt.state == "reserved":
        yield "open: being bought now, in a batch, or left by a process that is gone"
    if attempt.cost_microusd is not None and attempt.cost_microusd > attempt.reserve_microusd:
        yield "billed above what was reserved"


def _wrong_with_answer(attempt: Attempt, request: Mapping[str, Any]) -> Iterator[str]:
    reply = read_reply(attempt.raw_response or "")
    if attempt.state not in FINAL:
        if attempt.cost_microusd or attempt.n_prompt_tokens or attempt.n_completion_tokens:
            yield "a bill without an answer"
        if attempt.state == "unparsable" and reply.state != "unparsable":
            yield "the state is not what the stored response says"
        return
    bill = Bill(
        attempt.n_prompt_tokens or 0,
        attempt.n_completion_tokens or 0,
        attempt.cost_microusd or 0,
        attempt.n_cached_tokens,
        attempt.n_reasoning_tokens,
    )
    if attempt.state == "refused" and reply.state == "unparsable":  # not served, so for nothing
        if bill != Bill():
            yield "tokens or cost are not what the stored response and price give"
    elif reply.state != attempt.state:
        yield "the state is not what the stored response says"
    elif bill != _bill(attempt, request, reply):
        yield "tokens or cost are not what the stored response and price give"


def _bill(attempt: Attempt, request: Mapping[str, Any], reply: Reply) -> Bill | None:
    """The bill once more; None where the stored texts give none."""
    try:
        price = None if attempt.price is None else Price.model_validate_json(attempt.price)
        most = most_of(request, attempt.reserve_microusd)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    derive = bill_elsewhere if attempt.imported else bill_of
    return derive(reply, price, most=most)


def _held(attempt: Attempt) -> int:
    return attempt.reserve_microusd if attempt.state in HELD else attempt.cost_microusd or 0


def _key(request: dict[str, Any]) -> str | None:
    try:
        return call_key(request)
    except ValueError:
        return None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _damage(db: sqlite3.Connection) -> Iterator[str]:
    """What SQLite itself finds wrong with the file."""
    try:
        for (line,) in db.execute("PRAGMA integrity_check(10)"):
            if line != "ok":
                yield f"the file is damaged: {line}"
        for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
            yield f"row {row} of {table} names a row of {parent} that is not there"
    except sqlite3.DatabaseError as exc:
        yield f"the file is damaged: {exc}"


def _finals_too_many(db: sqlite3.Connection) -> list[int]:
    final = "state IN ('answered', 'truncated', 'refused')"
    rows = db.execute(
        f"SELECT max(id) FROM attempts WHERE {final} GROUP BY key HAVING count(*) > 1"
    )
    return [row[0] for row in rows]


def _rules(db: sqlite3.Connection) -> set[tuple[str, str]]:
    rows = db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index')")
    return {(kind, name) for kind, name in rows if not name.startswith("sqlite_")}
