"""Read from the ledger what forecasts need: answered requests, their costs and their lengths.

A missing ledger is an empty one. Reading takes no lock, also while another process writes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgekd.api_client.request_key import get_max_tokens
from bridgekd.cost.bounds import KnownCost
from bridgekd.cost.token_lengths import KnownUsage
from bridgekd.ledger.spend import get_last_id, open_snapshot
from bridgekd.ledger.sql import IS_FINAL, sum_reserved, translate_row_errors

N_RECENT = 2000  # maximum number of answers to use
MAX_SCANNED = 50_000  # maximum number of ledger rows to search for them
# Fields that may differ between two requests with answers of similar length.
_PER_REQUEST_FIELDS = frozenset(
    ("messages", "sample_index", "seed", "max_tokens", "max_completion_tokens")
)
_KEYS_PER_QUERY = 10_000


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A final answer of a model. `same_template`: its request differs only in the last message."""

    key: str
    usage: KnownUsage
    same_template: bool


def read_known_answers(ledger: Path, like: Mapping[str, Any]) -> list[KnownAnswer]:
    """Return the latest final answers, refusals included, of the model that `like` is sent to.

    like: a request. Raises InputError if the file is not a ledger.
    """
    template, answers = _get_template(like), []
    with open_snapshot(ledger, missing_ok=True) as db:
        rows = db.execute(
            f"""SELECT id, key, request, state, coalesce(n_prompt_tokens, 0),
                       coalesce(n_completion_tokens, 0), n_cached_tokens, n_reasoning_tokens
                FROM attempts WHERE id > (SELECT max(id) FROM attempts) - ?
                AND provider = ? AND model = ? AND {IS_FINAL}
                ORDER BY id DESC LIMIT ?""",
            (MAX_SCANNED, like["provider"], like["model"], N_RECENT),
        )
        for attempt_id, key, request_json, state, *counts in rows:
            with translate_row_errors(attempt_id, f"Ledger {ledger}"):
                request = json.loads(request_json)
                usage = _read_usage(request, state, *map(int, counts))
                answers.append(KnownAnswer(key, usage, _get_template(request) == template))
    return answers


def read_known_costs(ledger: Path, keys: Sequence[str]) -> dict[str, KnownCost]:
    """Return the costs of the final attempts by key. A key without one is not in the result."""
    costs: dict[str, KnownCost] = {}
    with open_snapshot(ledger, missing_ok=True) as db:
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            rows = db.execute(
                f"""SELECT id, key, coalesce(cost_microusd, 0), coalesce(n_prompt_tokens, 0)
                          + coalesce(n_completion_tokens, 0)
                   FROM attempts WHERE key IN (SELECT value FROM json_each(?)) AND {IS_FINAL}""",
                (json.dumps(keys[start : start + _KEYS_PER_QUERY]),),
            )
            for attempt_id, key, cost, n_tokens in rows:
                with translate_row_errors(attempt_id, f"Ledger {ledger}"):
                    costs[key] = KnownCost(int(cost), int(n_tokens))
    return costs


def average_answer_tokens(ledger: Path, provider: str, model: str) -> float | None:
    """Return the mean tokens of a model's latest answers without hidden reasoning tokens.

    None if the ledger has no answer of this model.
    """
    with open_snapshot(ledger, missing_ok=True) as db:
        (mean,) = db.execute(
            """SELECT avg(n) FROM (
                   SELECT n_completion_tokens - coalesce(n_reasoning_tokens, 0) AS n FROM attempts
                   WHERE id > (SELECT max(id) FROM attempts) - ?
                   AND provider = ? AND model = ? AND state = 'answered'
                   AND n_completion_tokens > 0 ORDER BY id DESC LIMIT ?)""",
            (MAX_SCANNED, provider, model, N_RECENT),
        ).fetchone()
    return None if mean is None else float(mean)


def read_reserved_microusd(ledger: Path) -> int:
    """Return the amount that counts against the hard limit."""
    with open_snapshot(ledger, missing_ok=True) as db:
        return sum_reserved(db)


def is_empty(ledger: Path) -> bool:
    """Return whether a ledger has no attempts."""
    with open_snapshot(ledger, missing_ok=True) as db:
        return not get_last_id(db)


def _read_usage(
    request: Mapping[str, Any],
    state: str,
    n_prompt: int,
    n_completion: int,
    n_cached: int,
    n_reasoning: int,
) -> KnownUsage:
    texts = [m["content"].encode("utf-8", "surrogatepass") for m in request["messages"]]
    is_truncated = state == "truncated" and n_completion >= get_max_tokens(request)
    return KnownUsage(
        sum(map(len, texts)),
        n_prompt,
        n_completion,
        n_cached,
        n_reasoning,
        is_truncated=is_truncated,
    )


def _get_template(request: Mapping[str, Any]) -> tuple[object, object]:
    """Return the parts of a request that requests with similar answers have in common."""
    fields = {k: v for k, v in request.items() if k not in _PER_REQUEST_FIELDS}
    return fields, request["messages"][:-1]
