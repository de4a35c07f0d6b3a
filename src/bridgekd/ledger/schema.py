"""The ledger's tables, and the check whether a file has them.

The format is fixed, because a ledger contains paid answers. A test compares it with a stored copy.
Raise VERSION with every change, and write a migration of the previous version.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

APPLICATION_ID = 0x62726B64  # "brkd": distinguishes a ledger from any other SQLite file
VERSION = 3

# `held_microusd` is what an attempt counts against the hard limit: its reserve while its outcome is
# open or unknown, else its cost, and 0 if it was imported. Triggers keep the total, so the check of
# a limit does not read a million rows. `attempts_spent` has every column that `sum_spend` adds up.
_TABLES = (
    """CREATE TABLE batches (
        token TEXT PRIMARY KEY,
        provider TEXT NOT NULL,
        host TEXT NOT NULL,
        remote_id TEXT,
        created_at TEXT NOT NULL
    )""",
    """CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        run TEXT NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('train', 'measure')),
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        request TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('reserved', 'answered', 'truncated', 'refused',
                                             'unparsable', 'failed', 'unknown')),
        reserve_microusd INTEGER NOT NULL CHECK (reserve_microusd >= 0),
        cost_microusd INTEGER CHECK (cost_microusd >= 0),
        n_prompt_tokens INTEGER,
        n_completion_tokens INTEGER,
        raw_response TEXT,
        price TEXT,
        request_id TEXT,
        created_at TEXT NOT NULL,
        settled_at TEXT,
        n_cached_tokens INTEGER NOT NULL DEFAULT 0,
        n_reasoning_tokens INTEGER NOT NULL DEFAULT 0,
        batch TEXT REFERENCES batches (token),
        imported INTEGER NOT NULL DEFAULT 0,
        held_microusd INTEGER NOT NULL GENERATED ALWAYS AS (
            CASE WHEN imported THEN 0
                 WHEN state IN ('reserved', 'unknown', 'unparsable') THEN reserve_microusd
                 ELSE coalesce(cost_microusd, 0) END) VIRTUAL
    )""",
    "CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), held_microusd INTEGER)",
    "INSERT INTO totals VALUES (1, 0)",
    "CREATE INDEX attempts_by_key ON attempts (key)",
    "CREATE INDEX attempts_open ON attempts (id) WHERE state = 'reserved'",
    """CREATE UNIQUE INDEX one_final_attempt_per_key ON attempts (key)
       WHERE state IN ('answered', 'truncated', 'refused')""",
    """CREATE INDEX attempts_spent ON attempts (
        run, model, state, purpose, provider, created_at, imported, reserve_microusd,
        cost_microusd, n_prompt_tokens, n_completion_tokens, n_cached_tokens,
        n_reasoning_tokens)""",
    """CREATE INDEX attempts_of_model ON attempts (provider, model, id)
       WHERE state IN ('answered', 'truncated')""",
    """CREATE TRIGGER nothing_is_deleted BEFORE DELETE ON attempts BEGIN
       SELECT RAISE(ABORT, 'a ledger forgets nothing'); END""",
    """CREATE TRIGGER total_grows AFTER INSERT ON attempts BEGIN
       UPDATE totals SET held_microusd = held_microusd + new.held_microusd; END""",
    """CREATE TRIGGER total_follows AFTER UPDATE ON attempts BEGIN
       UPDATE totals SET held_microusd = held_microusd - old.held_microusd + new.held_microusd;
       END""",
)


def get_version(db: sqlite3.Connection) -> int:
    """Return the version of the file's tables; 0 if it has none yet."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def is_ledger(db: sqlite3.Connection) -> bool:
    """Return whether the file is a ledger, or an empty file that may become one."""
    if int(db.execute("PRAGMA application_id").fetchone()[0]) == APPLICATION_ID:
        return True
    return not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


@contextmanager
def open_empty() -> Iterator[sqlite3.Connection]:
    """Yield a ledger in memory without attempts."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create_tables(db)
        yield db


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables of an empty file in one transaction. A file with tables stays as it is."""
    if get_version(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in () if get_version(db) else _TABLES:  # another process may have been first
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
