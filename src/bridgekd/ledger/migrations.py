"""The ledger's tables, as ordered functions: file version n is what the first n of them made.

A published migration is never changed; a new shape is a new function at the end.
"""

import sqlite3
from collections.abc import Callable

APPLICATION_ID = 0x62726B64  # "brkd": tells a ledger from any other SQLite file


_TOTALS = (
    """CREATE TRIGGER total_grows AFTER INSERT ON attempts BEGIN
       UPDATE totals SET held_microusd = held_microusd + new.held_microusd; END""",
    """CREATE TRIGGER total_follows AFTER UPDATE ON attempts BEGIN
       UPDATE totals SET held_microusd = held_microusd - old.held_microusd + new.held_microusd;
       END""",
)


def _attempts(db: sqlite3.Connection) -> None:
    """One row per attempt at a call, and the total that the hard stop is checked against.

    `held_microusd` is what an attempt counts for: its reserve while its fate is open or unknown,
    else its cost. Triggers keep the total, so that checking a limit does not read a million rows.
    """
    for statement in (
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
            held_microusd INTEGER NOT NULL GENERATED ALWAYS AS (
                CASE WHEN state IN ('reserved', 'unknown', 'unparsable') THEN reserve_microusd
                     ELSE coalesce(cost_microusd, 0) END) VIRTUAL
        )""",
        "CREATE INDEX attempts_by_key ON attempts (key)",
        "CREATE INDEX attempts_open ON attempts (id) WHERE state = 'reserved'",
        """CREATE UNIQUE INDEX one_final_attempt_per_key ON attempts (key)
           WHERE state IN ('answered', 'truncated', 'refused')""",
        "CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), held_microusd INTEGER)",
        "INSERT INTO totals VALUES (1, 0)",
        *_TOTALS,
        """CREATE TRIGGER nothing_is_deleted BEFORE DELETE ON attempts BEGIN
           SELECT RAISE(ABORT, 'a ledger forgets nothing'); END""",
    ):
        db.execute(statement)


def _batches(db: sqlite3.Connection) -> None:
    """Batches, imported answers, and the kinds of tokens that have prices of their own.

    An attempt in a batch outlives the process that sent it. An imported answer was paid for
    elsewhere and holds nothing here.
    """
    for statement in (
        """CREATE TABLE batches (
            token TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            host TEXT NOT NULL,
            remote_id TEXT,
            created_at TEXT NOT NULL
        )""",
        "ALTER TABLE attempts ADD COLUMN n_cached_tokens INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE attempts ADD COLUMN n_reasoning_tokens INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE attempts ADD COLUMN batch TEXT REFERENCES batches (token)",
        "ALTER TABLE attempts ADD COLUMN imported INTEGER NOT NULL DEFAULT 0",
        "DROP TRIGGER total_grows",
        "DROP TRIGGER total_follows",
        "ALTER TABLE attempts DROP COLUMN held_microusd",
        """ALTER TABLE attempts ADD COLUMN held_microusd INTEGER NOT NULL GENERATED ALWAYS AS (
            CASE WHEN imported THEN 0
                 WHEN state IN ('reserved', 'unknown', 'unparsable') THEN reserve_microusd
                 ELSE coalesce(cost_microusd, 0) END) VIRTUAL""",
        *_TOTALS,
    ):
        db.execute(statement)


def _indexes(db: sqlite3.Connection) -> None:
    """What was spent, and a model's latest answers, without reading the texts of a million rows.

    `attempts_spent` holds every column that the views add up.
    """
    for statement in (
        """CREATE INDEX attempts_spent ON attempts (
            run, model, state, purpose, provider, created_at, imported, reserve_microusd,
            cost_microusd, n_prompt_tokens, n_completion_tokens, n_cached_tokens,
            n_reasoning_tokens)""",
        """CREATE INDEX attempts_of_model ON attempts (provider, model, id)
           WHERE state IN ('answered', 'truncated')""",
    ):
        db.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_attempts, _batches, _indexes)


def version(db: sqlite3.Connection) -> int:
    """How many migrations this file has seen."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def is_ledger(db: sqlite3.Connection) -> bool:
    """Whether the file is a ledger, or an empty file that may become one."""
    if int(db.execute("PRAGMA application_id").fetchone()[0]) == APPLICATION_ID:
        return True
    return not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def migrate(db: sqlite3.Connection) -> None:
    """Brings a file to the newest version, one transaction a migration."""
    for number, migration in enumerate(MIGRATIONS, start=1):
        if version(db) >= number:
            continue
        db.execute("BEGIN IMMEDIATE")
        try:
            migration(db)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
