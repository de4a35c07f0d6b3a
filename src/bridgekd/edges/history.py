"""What the ledger already knows of a model: how long its answers are, for forecasts. Reads, never
locks.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from bridgekd.core.forecast import Usage

_RECENT = 2000


def known_usage(ledger: Path, provider: str, model: str) -> list[Usage]:
    """The latest final answers of a model (2,000 at most); empty where there is no readable ledger
    yet.
    """
    if not ledger.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(
                """SELECT request, n_prompt_tokens, n_completion_tokens FROM attempts
                   WHERE provider = ? AND model = ? AND state IN ('answered', 'truncated')
                   ORDER BY id DESC LIMIT ?""",
                (provider, model, _RECENT),
            ).fetchall()
    except sqlite3.DatabaseError:
        return []  # opening it for buying says what is wrong with it
    return [Usage(_prompt_bytes(request), prompt, answer) for request, prompt, answer in rows]


def _prompt_bytes(request: str) -> int:
    return sum(len(m["content"].encode()) for m in json.loads(request)["messages"])
