"""Reads a ledger without locking it: what was spent, on what and when."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bridgekd.edges import migrations
from bridgekd.edges.ledger_file import open_to_read, refuse_foreign, translated


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What the attempts of one run, purpose, model and state add up to.

    `held_microusd` is what they count for against the hard stop.
    """

    run: str
    purpose: str
    model: str
    state: str
    n_attempts: int
    n_prompt_tokens: int
    n_completion_tokens: int
    held_microusd: int


def spend(path: str | Path) -> tuple[SpendRow, ...]:
    """What the ledger at `path` holds by run, purpose, model and state; takes no lock.

    An empty tuple where there is no file yet.
    """
    path = Path(path)
    if not path.exists():
        return ()
    with translated(path), closing(open_to_read(path)) as db:
        refuse_foreign(db, path)
        if migrations.version(db) == 0:  # made, but the process died before its tables were
            return ()
        rows = db.execute(
            """SELECT run, purpose, model, state, count(*), coalesce(sum(n_prompt_tokens), 0),
                      coalesce(sum(n_completion_tokens), 0), coalesce(sum(held_microusd), 0)
               FROM attempts GROUP BY run, purpose, model, state
               ORDER BY run, purpose, model, state"""
        ).fetchall()
    return tuple(SpendRow(*row) for row in rows)
