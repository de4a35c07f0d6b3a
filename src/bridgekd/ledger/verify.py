"""Verify a ledger: every attempt agrees with its stored texts, and the totals are correct.

Everything derived is derived again by the functions that derived it first: the key from the
request, the state and the cost from the raw response and the price, the reserved amount from the
state, the total from the attempts. Reads one attempt at a time and changes nothing.
"""

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
    parse_json,
)
from bridgekd.api_client.request_key import compute_request_key
from bridgekd.ledger import schema
from bridgekd.ledger.imported_request import compute_imported_cost
from bridgekd.ledger.spend import Attempt, get_last_id, iter_attempts, open_snapshot
from bridgekd.ledger.sql import FINAL_STATES, IS_FINAL, get_max_cost, parse_price, sum_reserved
from bridgekd.progress import Progress, ignore_progress

N_SHOWN_IDS = 10  # ids in an issue; the other attempts are only counted
PROGRESS_EVERY = 2000  # attempts between two progress reports
RESERVED_STATES = ("reserved", "unknown", "unparsable")  # these count at their reserve


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue with `n` attempts; `ids` are the first of them. An issue of the file has none."""

    what: str
    n: int = 0
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The result of a verification. A correct ledger has no errors, but may have warnings."""

    n_attempts: int
    errors: tuple[Issue, ...]
    warnings: tuple[Issue, ...]


class _IssueCounts:
    """Issues, each with the number of its attempts and their first ids."""

    def __init__(self) -> None:
        self._issues: dict[str, Issue] = {}

    def add(self, what: str, attempt_id: int | None = None) -> None:
        issue = self._issues.get(what, Issue(what))
        if attempt_id is not None:
            issue = Issue(what, issue.n + 1, (*issue.ids, attempt_id)[:N_SHOWN_IDS])
        self._issues[what] = issue

    def all(self) -> tuple[Issue, ...]:
        return tuple(self._issues.values())


def verify(path: Path, progress: Progress = ignore_progress) -> VerificationReport:
    """Return the issues of the ledger at `path`, as it is when the verification begins.

    Takes no lock. A file that SQLite reports as damaged is not read further.
    """
    errors, warnings = _IssueCounts(), _IssueCounts()
    with open_snapshot(path) as db:
        progress("Check the file", 0, 1)
        for what in _find_damage(db):
            errors.add(what)
        progress("Check the file", 1, 1)
        if errors.all():
            return VerificationReport(0, errors.all(), ())
        with schema.open_empty() as empty:
            for kind, name in sorted(_list_triggers(empty) - _list_triggers(db)):
                errors.add(f"the {kind} {name} is missing")
        n_attempts, n_reserved = _check_attempts(db, errors, warnings, progress)
        if sum_reserved(db) != n_reserved:
            errors.add(
                f"the reserved total is {sum_reserved(db):,} micro-dollars, but the attempts add "
                f"up to {n_reserved:,}"
            )
        finals = f"SELECT max(id) FROM attempts WHERE {IS_FINAL}"
        for (attempt_id,) in db.execute(f"{finals} GROUP BY key HAVING count(*) > 1"):
            errors.add("another attempt of the same request is final too", attempt_id)
    return VerificationReport(n_attempts, errors.all(), warnings.all())


def _check_attempts(
    db: sqlite3.Connection, errors: _IssueCounts, warnings: _IssueCounts, progress: Progress
) -> tuple[int, int]:
    """Check every attempt. Return their number and their reserved sum in micro-dollars."""
    total, last_id, n_attempts, n_reserved = get_last_id(db), 0, 0, 0
    for n_attempts, attempt in enumerate(iter_attempts(db), start=1):
        if attempt.id != last_id + 1:  # ids have no gaps, because a rollback frees its id
            errors.add("the attempt before it was deleted", attempt.id)
        last_id, n_reserved = attempt.id, n_reserved + attempt.reserved_microusd
        for what in _find_errors(attempt):
            errors.add(what, attempt.id)
        for what in _find_warnings(attempt):
            warnings.add(what, attempt.id)
        if n_attempts % PROGRESS_EVERY == 0:
            progress("Verify", n_attempts, total)
    progress("Verify", n_attempts, n_attempts)
    return n_attempts, n_reserved


def _find_errors(attempt: Attempt) -> Iterator[str]:
    """Yield what an attempt states in contradiction to its own texts."""
    expected = attempt.cost_microusd or 0
    if attempt.imported:
        expected = 0
    elif attempt.state in RESERVED_STATES:
        expected = attempt.reserve_microusd
    if attempt.reserved_microusd != expected:
        yield "the reserved amount does not match the state"
    if (attempt.settled_at is None) != (attempt.state == "reserved"):
        yield "the settling time does not match the state"
    request = parse_json(attempt.request)
    if not isinstance(request, dict) or _recompute_key(request) != attempt.key:
        yield "the key does not match the stored request"
        return
    if (request.get("provider"), request.get("model")) != (attempt.provider, attempt.model):
        yield "the provider or the model does not match the stored request"
    yield from _find_answer_errors(attempt, request)


def _find_warnings(attempt: Attempt) -> Iterator[str]:
    """Yield what a user may want to know about a correct attempt."""
    if attempt.state == "reserved":
        yield "open: in a running purchase or batch, or left open by a killed process"
    if attempt.cost_microusd is not None and attempt.cost_microusd > attempt.reserve_microusd:
        yield "billed above its reserve"


def _find_answer_errors(attempt: Attempt, request: Mapping[str, Any]) -> Iterator[str]:
    reply = parse_completion(attempt.raw_response or "")
    if attempt.state not in FINAL_STATES:
        if attempt.cost_microusd or attempt.n_prompt_tokens or attempt.n_completion_tokens:
            yield "the attempt has a cost but no answer"
        if attempt.state == "unparsable" and reply.state != "unparsable":
            yield "the state does not match the stored response"
        return
    stored = RequestCost(
        attempt.n_prompt_tokens or 0,
        attempt.n_completion_tokens or 0,
        attempt.cost_microusd or 0,
        attempt.n_cached_tokens,
        attempt.n_reasoning_tokens,
    )
    # A refused attempt without a chat completion was not served, so it is free; or it may have been
    # served, without an answer, and costs its reserve.
    is_unserved = attempt.state == "refused" and reply.state == "unparsable"
    expected = _recompute_cost(attempt, request, reply)
    if reply.state != attempt.state and not is_unserved:
        yield "the state does not match the stored response"
    elif stored != expected and not (is_unserved and stored == RequestCost()):
        yield "the tokens or the cost do not match the stored response and price"


def _recompute_cost(
    attempt: Attempt, request: Mapping[str, Any], reply: CompletionBody
) -> RequestCost | None:
    """Return the cost of an attempt from its texts, or None if they do not determine one."""
    try:
        price = parse_price(attempt.price)
        max_cost = get_max_cost(request, attempt.reserve_microusd)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    compute_cost = compute_imported_cost if attempt.imported else compute_request_cost
    return compute_cost(reply, price, max_cost=max_cost)


def _recompute_key(request: Mapping[str, Any]) -> str | None:
    try:
        return compute_request_key(request)
    except ValueError:
        return None


def _find_damage(db: sqlite3.Connection) -> Iterator[str]:
    """Yield what SQLite itself reports about the file."""
    try:
        for (line,) in db.execute("PRAGMA integrity_check(10)"):
            if line != "ok":
                yield f"the file is damaged: {line}"
        for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
            yield f"row {row} of {table} refers to a missing row of {parent}"
    except sqlite3.DatabaseError as exc:
        yield f"the file is damaged: {exc}"


def _list_triggers(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return the triggers and indexes as (type, name)."""
    rows = db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'index')")
    return {(kind, name) for kind, name in rows if not name.startswith("sqlite_")}
