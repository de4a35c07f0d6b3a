"""The rows of the ledger: SQL over an open connection, inside whatever transaction is open.

What this keeps true: an attempt changes only while it is open, and its number of columns that say
what it cost is written in one statement with its state.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridgekd.api_client.chat_completion import RequestCost, compute_request_cost, parse_completion
from bridgekd.api_client.request_key import (
    compute_request_key,
    get_billed_messages,
    get_max_tokens,
    to_canonical_json,
)
from bridgekd.cost.request_cost import compute_max_prompt_tokens
from bridgekd.recipe import Price

FINAL_STATES = ("answered", "truncated", "refused")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A final attempt as the ledger remembers it."""

    key: str
    state: str
    raw_response: str
    bill: RequestCost


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch with the ids of the attempts that are still open, by their keys.

    `remote_id` is None before the server is asked to make it, and "" while nobody knows whether
    it did.
    """

    token: str
    provider: str
    host: str
    remote_id: str | None
    created_at: str
    attempts: dict[str, int]


_PRICE_KEYS = {"cached_input": "cached"}  # the database format never changes


def insert_attempt(
    db: sqlite3.Connection,
    request: Mapping[str, Any],
    run: str,
    purpose: str,
    reserve_microusd: int,
) -> int:
    """A new open attempt; returns its id."""
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
    """The final attempt of a key, if it has one."""
    row = db.execute(
        """SELECT key, state, coalesce(raw_response, ''), n_prompt_tokens,
                  n_completion_tokens, cost_microusd, n_cached_tokens, n_reasoning_tokens
           FROM attempts WHERE key = ? AND state IN ('answered', 'truncated', 'refused')""",
        (key,),
    ).fetchone()
    if row is None:
        return None
    key, state, raw, *amounts = row
    return StoredAnswer(key, state, raw, RequestCost(*amounts))


def close_abandoned(db: sqlite3.Connection, token: str | None = None) -> int:
    """Closes the open attempts of a process that is gone, or those of one batch that were recorded;
    returns how many.

    What had been recorded is settled by what it says. A batch that no server was asked to make
    failed; all others go on without us. What else there is may have been served: unknown.
    """
    which = "(batch IS NULL OR remote_id IS NULL OR raw_response IS NOT NULL)"
    if token is not None:
        which = "batch = :token AND raw_response IS NOT NULL"
    left = db.execute(
        f"""SELECT id, key, request, raw_response, price, reserve_microusd, batch FROM attempts
            LEFT JOIN batches ON batch = token WHERE state = 'reserved' AND {which} ORDER BY id""",
        {"token": token},
    ).fetchall()
    for attempt_id, key, request, raw, price, reserve, batch in left:
        reply = parse_completion(raw) if raw is not None else None
        if reply is None:
            state = "unknown" if batch is None else "failed"
            update_attempt(db, attempt_id, state=state, settled_at=get_utc_now())
        elif reply.state in FINAL_STATES and find_final_attempt(db, key):
            update_attempt(db, attempt_id, state="unknown", settled_at=get_utc_now())
        elif reply.state not in FINAL_STATES:
            update_attempt(db, attempt_id, state=reply.state, settled_at=get_utc_now())
        else:
            bill = compute_request_cost(
                reply, parse_price(price), max_cost=get_maximum_cost(json.loads(request), reserve)
            )
            settle_attempt(db, attempt_id, reply.state, bill)
    return len(left)


def find_open_batches(db: sqlite3.Connection) -> tuple[OpenBatch, ...]:
    """The batches with attempts that are still open, oldest first."""
    rows = db.execute(
        """SELECT token, b.provider, host, remote_id, b.created_at, key, id
           FROM attempts a JOIN batches b ON a.batch = b.token
           WHERE a.state = 'reserved' ORDER BY id"""
    ).fetchall()
    batches: dict[str, OpenBatch] = {}
    for token, provider, host, remote_id, created_at, key, attempt_id in rows:
        empty = OpenBatch(token, provider, host, remote_id, created_at, {})
        batches.setdefault(token, empty).attempts[key] = attempt_id
    return tuple(batches.values())


def sum_reserved(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT held_microusd FROM totals").fetchone()[0])


def get_reserve(db: sqlite3.Connection, attempt_id: int) -> tuple[int, str]:
    row = db.execute(
        "SELECT reserve_microusd, model FROM attempts WHERE id = ?", (attempt_id,)
    ).fetchone()
    if row is None:
        raise ValueError(f"no attempt {attempt_id} in this ledger")
    return int(row[0]), str(row[1])


def settle_attempt(db: sqlite3.Connection, attempt_id: int, state: str, bill: RequestCost) -> None:
    update_attempt(
        db,
        attempt_id,
        state=state,
        n_prompt_tokens=bill.n_prompt_tokens,
        n_completion_tokens=bill.n_completion_tokens,
        n_cached_tokens=bill.n_cached_tokens,
        n_reasoning_tokens=bill.n_reasoning_tokens,
        cost_microusd=bill.cost_microusd,
        settled_at=get_utc_now(),
    )


def update_attempt(db: sqlite3.Connection, attempt_id: int, **columns: object) -> None:
    """Changes an open attempt; what is settled is never changed."""
    names = ", ".join(f"{name} = ?" for name in columns)
    cursor = db.execute(
        f"UPDATE attempts SET {names} WHERE id = ? AND state = 'reserved'",
        (*columns.values(), attempt_id),
    )
    if cursor.rowcount != 1:
        raise ValueError(f"attempt {attempt_id} is not open")


def dump_price(price: Price | None) -> str | None:
    """Return a price as the column `price` stores it."""
    if price is None:
        return None
    stored = price.model_dump(exclude_none=True)
    return to_canonical_json({_PRICE_KEYS.get(key, key): v for key, v in stored.items()})


def parse_price(stored: str | None) -> Price | None:
    """Return the price in a `price` column. Raises ValueError if it is not one."""
    if not stored:
        return None
    names = {old: new for new, old in _PRICE_KEYS.items()}
    return Price.model_validate({names.get(k, k): v for k, v in json.loads(stored).items()})


def get_maximum_cost(request: Mapping[str, Any], reserve_microusd: int) -> RequestCost:
    """What was reserved for a stored request, as a bill."""
    n_prompt = compute_max_prompt_tokens(get_billed_messages(request))
    return RequestCost(n_prompt, get_max_tokens(request), reserve_microusd)


def get_utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
