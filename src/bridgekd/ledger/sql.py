"""The rows of the ledger: SQL in whatever transaction is open.

An attempt changes only while it is open. Its state and its cost are written in one statement.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridgekd.api_client.chat_completion import RequestCost, compute_request_cost, parse_completion
from bridgekd.api_client.request_key import (
    compute_request_key,
    get_billed_messages,
    get_max_tokens,
    to_canonical_json,
)
from bridgekd.cost.request_cost import compute_max_prompt_tokens
from bridgekd.errors import InputError
from bridgekd.recipe import Price

FINAL_STATES = ("answered", "truncated", "refused")
UNANSWERED_STATES = ("reserved", "failed", "unknown", "unparsable")
IS_FINAL = "state IN ('answered', 'truncated', 'refused')"
_PRICE_KEYS = {"cached_input": "cached"}  # the database format never changes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A final attempt."""

    key: str
    state: str
    raw_response: str
    cost: RequestCost


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch, with the ids of its open attempts by key.

    `remote_id` is None before the server is asked to create the batch, and "" while it is unknown
    whether it did.
    """

    token: str
    provider: str
    host: str
    remote_id: str | None
    created_at: str
    attempts: dict[str, int]


def insert_attempt(
    db: sqlite3.Connection,
    request: Mapping[str, Any],
    run: str,
    purpose: str,
    reserve_microusd: int,
) -> int:
    """Insert an open attempt and return its id."""
    cursor = db.execute(
        """INSERT INTO attempts (key, run, purpose, provider, model, request, state,
                                 reserve_microusd, created_at)
           VALUES (?, ?, ?, ?, ?, ?, 'reserved', ?, ?)""",
        (
            compute_request_key(request),
            run,
            purpose,
            str(request["provider"]),
            str(request["model"]),
            to_canonical_json(dict(request)),
            reserve_microusd,
            get_utc_now(),
        ),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def find_final_attempt(db: sqlite3.Connection, key: str) -> StoredAnswer | None:
    """Return the final attempt of a key, or None."""
    row = db.execute(
        f"""SELECT id, state, coalesce(raw_response, ''), n_prompt_tokens, n_completion_tokens,
                   cost_microusd, n_cached_tokens, n_reasoning_tokens
            FROM attempts WHERE key = ? AND {IS_FINAL}""",
        (key,),
    ).fetchone()
    if row is None:
        return None
    attempt_id, state, raw, *amounts = row
    with translate_row_errors(attempt_id):
        return StoredAnswer(key, state, raw, RequestCost(*(int(n or 0) for n in amounts)))


def close_abandoned(db: sqlite3.Connection, token: str | None = None) -> int:
    """Close the open attempts of a process that ended, and return their number.

    A recorded response is settled. Without one, an attempt of a batch failed if no server was asked
    to create the batch; otherwise the batch continues on the server and its attempts stay open.
    Every other attempt may have been served and becomes unknown.

    token: close only the attempts of this batch that have a recorded response.
    """
    condition = "(batch IS NULL OR remote_id IS NULL OR raw_response IS NOT NULL)"
    if token is not None:
        condition = "batch = :token AND raw_response IS NOT NULL"
    rows = db.execute(
        f"""SELECT id, key, request, raw_response, price, reserve_microusd, batch FROM attempts
            LEFT JOIN batches ON batch = token
            WHERE state = 'reserved' AND {condition} ORDER BY id""",
        {"token": token},
    ).fetchall()
    for attempt_id, key, request, raw, price, reserve, batch in rows:
        reply = None if raw is None else parse_completion(raw)
        if reply is None:
            close_attempt(db, attempt_id, "unknown" if batch is None else "failed")
        elif reply.state not in FINAL_STATES:
            close_attempt(db, attempt_id, reply.state)
        elif find_final_attempt(db, key):
            close_attempt(db, attempt_id, "unknown")
        else:
            with translate_row_errors(attempt_id):
                max_cost = get_max_cost(json.loads(request), reserve)
                cost = compute_request_cost(reply, parse_price(price), max_cost=max_cost)
            close_attempt(db, attempt_id, reply.state, cost)
    return len(rows)


def find_open_batches(db: sqlite3.Connection) -> tuple[OpenBatch, ...]:
    """Return the batches with open attempts, oldest first."""
    rows = db.execute(
        """SELECT token, b.provider, host, remote_id, b.created_at, key, id
           FROM attempts a JOIN batches b ON a.batch = b.token
           WHERE a.state = 'reserved' ORDER BY id"""
    )
    batches: dict[str, OpenBatch] = {}
    for token, provider, host, remote_id, created_at, key, attempt_id in rows:
        empty = OpenBatch(token, provider, host, remote_id, created_at, {})
        batches.setdefault(token, empty).attempts[key] = attempt_id
    return tuple(batches.values())


def sum_reserved(db: sqlite3.Connection) -> int:
    """Return what all attempts count against the hard limit, in micro-dollars."""
    return int(db.execute("SELECT held_microusd FROM totals").fetchone()[0])


def close_attempt(
    db: sqlite3.Connection, attempt_id: int, state: str, cost: RequestCost | None = None
) -> None:
    """Set the state of an open attempt, and its cost if the state is final."""
    columns: dict[str, object] = {} if cost is None else asdict(cost)
    update_attempt(db, attempt_id, state=state, settled_at=get_utc_now(), **columns)


def update_attempt(db: sqlite3.Connection, attempt_id: int, **columns: object) -> None:
    """Change an open attempt. Raises ValueError if the attempt is settled."""
    names = ", ".join(f"{name} = ?" for name in columns)
    cursor = db.execute(
        f"UPDATE attempts SET {names} WHERE id = ? AND state = 'reserved'",
        (*columns.values(), attempt_id),
    )
    if cursor.rowcount != 1:
        raise ValueError(f"Attempt {attempt_id} is not open.")


def dump_price(price: Price | None) -> str | None:
    """Return a price as the column `price` stores it."""
    if price is None:
        return None
    fields = price.model_dump(exclude_none=True)
    return to_canonical_json({_PRICE_KEYS.get(key, key): v for key, v in fields.items()})


def parse_price(stored: str | None) -> Price | None:
    """Return the price in a `price` column. Raises ValueError if it is not a price."""
    if not stored:
        return None
    names = {old: new for new, old in _PRICE_KEYS.items()}
    return Price.model_validate({names.get(k, k): v for k, v in json.loads(stored).items()})


@contextmanager
def translate_row_errors(attempt_id: int, ledger: str | Path = "The ledger") -> Iterator[None]:
    """Turn what a row with broken JSON or another shape raises in the block into an InputError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        raise InputError(
            f"{ledger}: attempt {attempt_id} has broken JSON or another shape ({str(exc)[:200]}). "
            "Run `bridgekd ledger verify` to find all errors."
        ) from exc


def get_max_cost(request: Mapping[str, Any], reserve_microusd: int) -> RequestCost:
    """Return the maximum tokens and cost of a stored request."""
    n_prompt = compute_max_prompt_tokens(get_billed_messages(request))
    return RequestCost(n_prompt, get_max_tokens(request), reserve_microusd)


def get_utc_now() -> str:
    """Return the time as ISO 8601 text with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
