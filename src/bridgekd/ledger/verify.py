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

from bridgekd.api_client.chat_completion import (
    CompletionBody,
    RequestCost,
    compute_request_cost,
    parse_completion,
)
from bridgekd.api_client.request_key import compute_request_key
from bridgekd.ledger import schema, sql
from bridgekd.ledger.imported_request import compute_imported_cost
from bridgekd.ledger.spend import Attempt, get_last_id, iter_attempts, open_snapshot
from bridgekd.ledger.sql import FINAL_STATES, get_maximum_cost, sum_reserved
from bridgekd.progress import Progress, ignore_progress

N_SHOWN_IDS = 10  # ids of a finding; the rest is a number
PROGRESS_EVERY = 2000  # attempts between two signs of progress
RESERVED_STATES = ("reserved", "unknown", "unparsable")  # at their reserve


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is so of `n` attempts; `ids` are the first of them. About the file as a whole
    it has none.
    """

    what: str
    n: int = 0
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What a check came to. `findings` must not be; `notes` may, and are worth knowing."""

    n_attempts: int
    errors: tuple[Issue, ...]
    warnings: tuple[Issue, ...]


class _IssueCounts:
    """Findings as they come up, each with its first ids."""

    def __init__(self) -> None:
        self._n: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}

    def add(self, what: str, attempt_id: int | None = None) -> None:
        ids = self._ids.setdefault(what, [])
        self._n[what] = self._n.get(what, 0) + (attempt_id is not None)
        if attempt_id is not None and len(ids) < N_SHOWN_IDS:
            ids.append(attempt_id)

    def all(self) -> tuple[Issue, ...]:
        return tuple(Issue(what, n, tuple(self._ids[what])) for what, n in self._n.items())


def verify(path: Path, progress: Progress = ignore_progress) -> VerificationReport:
    """Checks the file, then every attempt, then what they add up to. Takes no lock; sees the ledger
    as it was when the check began.
    """
    findings, notes = _IssueCounts(), _IssueCounts()
    with open_snapshot(path) as db:
        progress("Check the file", 0, 1)
        for what in _damage(db):
            findings.add(what)
        progress("Check the file", 1, 1)
        if found := findings.all():  # what a damaged file says of its attempts means nothing
            return VerificationReport(0, found, ())
        with schema.open_empty() as empty:
            for kind, name in sorted(_list_triggers(empty) - _list_triggers(db)):
                findings.add(f"the {kind} {name} is gone")
        n_attempts, n_held = _check_attempts(db, findings, notes, progress)
        if sum_reserved(db) != n_held:
            findings.add(
                f"the total held is {sum_reserved(db):,} micro-dollars, but of all {n_held:,}"
            )
        for attempt_id in _count_duplicate_finals(db):
            findings.add("another attempt at the same call is final too", attempt_id)
    return VerificationReport(n_attempts, findings.all(), notes.all())


def _check_attempts(
    db: sqlite3.Connection, findings: _IssueCounts, notes: _IssueCounts, progress: Progress
) -> tuple[int, int]:
    """Checks every attempt; returns how many there are and what they hold together."""
    total, last, n_attempts, n_held = get_last_id(db), 0, 0, 0
    for n_attempts, attempt in enumerate(iter_attempts(db), start=1):
        if attempt.id != last + 1:  # ids have no gaps: one that is rolled back is given again
            findings.add("what stood just before was deleted", attempt.id)
        last, n_held = attempt.id, n_held + attempt.reserved_microusd
        for what in find_errors(attempt):
            findings.add(what, attempt.id)
        for what in find_warnings(attempt):
            notes.add(what, attempt.id)
        if n_attempts % PROGRESS_EVERY == 0:
            progress("Verify", n_attempts, total)
    progress("Verify", n_attempts, n_attempts)
    return n_attempts, n_held


def find_errors(attempt: Attempt) -> Iterator[str]:
    """What one attempt says that its own texts deny."""
    expected = 0 if attempt.imported else _recompute_reserved(attempt)
    if attempt.reserved_microusd != expected:
        yield "held is not what the state implies"
    if (attempt.settled_at is None) != (attempt.state == "reserved"):
        yield "the time of settling does not fit the state"
    request = _json(attempt.request)
    if not isinstance(request, dict) or _recompute_key(request) != attempt.key:
        yield "the key is not that of the stored request"
        return
    if (request.get("provider"), request.get("model")) != (attempt.provider, attempt.model):
        yield "provider or model are not those of the stored request"
    yield from _find_answer_errors(attempt, request)


def find_warnings(attempt: Attempt) -> Iterator[str]:
    """What one attempt says that a person may want to know."""
    if attempt.state == "reserved":
        yield "open: being bought now, in a batch, or left by a process that is gone"
    if attempt.cost_microusd is not None and attempt.cost_microusd > attempt.reserve_microusd:
        yield "billed above what was reserved"


def _find_answer_errors(attempt: Attempt, request: Mapping[str, Any]) -> Iterator[str]:
    reply = parse_completion(attempt.raw_response or "")
    if attempt.state not in FINAL_STATES:
        if attempt.cost_microusd or attempt.n_prompt_tokens or attempt.n_completion_tokens:
            yield "a bill without an answer"
        if attempt.state == "unparsable" and reply.state != "unparsable":
            yield "the state is not what the stored response says"
        return
    bill = RequestCost(
        attempt.n_prompt_tokens or 0,
        attempt.n_completion_tokens or 0,
        attempt.cost_microusd or 0,
        attempt.n_cached_tokens,
        attempt.n_reasoning_tokens,
    )
    if attempt.state == "refused" and reply.state == "unparsable":  # not served, so for nothing
        if bill != RequestCost():
            yield "tokens or cost are not what the stored response and price give"
    elif reply.state != attempt.state:
        yield "the state is not what the stored response says"
    elif bill != _recompute_cost(attempt, request, reply):
        yield "tokens or cost are not what the stored response and price give"


def _recompute_cost(
    attempt: Attempt, request: Mapping[str, Any], reply: CompletionBody
) -> RequestCost | None:
    """The bill once more; None where the stored texts give none."""
    try:
        price = sql.parse_price(attempt.price)
        most = get_maximum_cost(request, attempt.reserve_microusd)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    derive = compute_imported_cost if attempt.imported else compute_request_cost
    return derive(reply, price, max_cost=most)


def _recompute_reserved(attempt: Attempt) -> int:
    return (
        attempt.reserve_microusd if attempt.state in RESERVED_STATES else attempt.cost_microusd or 0
    )


def _recompute_key(request: dict[str, Any]) -> str | None:
    try:
        return compute_request_key(request)
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


def _count_duplicate_finals(db: sqlite3.Connection) -> list[int]:
    final = "state IN ('answered', 'truncated', 'refused')"
    rows = db.execute(
        f"SELECT max(id) FROM attempts WHERE {final} GROUP BY key HAVING count(*) > 1"
    )
    return [row[0] for row in rows]


def _list_triggers(db: sqlite3.Connection) -> set[tuple[str, str]]:
    rows = db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index')")
    return {(kind, name) for kind, name in rows if not name.startswith("sqlite_")}
