"""What the ledger already knows, for forecasts: which calls are answered, and how long the model's
answers are. Reads, never locks, also while another process is writing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgekd.api_client.request_key import get_max_tokens
from bridgekd.cost.bounds import KnownCost
from bridgekd.cost.token_lengths import KnownUsage
from bridgekd.ledger.spend import open_snapshot

N_RECENT = 2000  # answers that are looked at
MAX_SCANNED = 50_000  # rows of the ledger that are searched for them
# What may differ between two requests whose answers are alike: the question, which sample, the cap.
_PER_REQUEST_FIELDS = frozenset(
    ("messages", "sample_index", "seed", "max_tokens", "max_completion_tokens")
)
_KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A final answer of the model; `alike`: to a request that differs only in its last message."""

    key: str
    usage: KnownUsage
    same_template: bool


def read_known_answers(ledger: Path, like: Mapping[str, Any]) -> list[KnownAnswer]:
    """The latest final answers of the model that `like`, a call, goes to, refusals among them.

    Nothing where there is no ledger yet; InputError where the file is none.
    """
    make, answers = _get_template(like), []
    if not ledger.is_file():
        return []
    with open_snapshot(ledger) as db:
        rows = db.execute(
            """SELECT key, request, state, coalesce(n_prompt_tokens, 0),
                       coalesce(n_completion_tokens, 0), n_cached_tokens, n_reasoning_tokens
                FROM attempts WHERE id > (SELECT max(id) FROM attempts) - ?
                AND provider = ? AND model = ? AND state IN ('answered', 'truncated', 'refused')
                ORDER BY id DESC LIMIT ?""",
            (MAX_SCANNED, like["provider"], like["model"], N_RECENT),
        )
        for key, request, state, n_prompt, n_answer, n_cached, n_reasoning in rows:
            call = json.loads(request)
            usage = KnownUsage(
                sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in call["messages"]),
                n_prompt,
                n_answer,
                n_cached,
                n_reasoning,
                is_truncated=state == "truncated" and n_answer >= get_max_tokens(call),
            )
            answers.append(KnownAnswer(key, usage, _get_template(call) == make))
    return answers


def read_known_costs(ledger: Path, keys: Sequence[str]) -> dict[str, KnownCost]:
    """What the final attempts at calls first cost, by key; calls without one are not in it."""
    found: dict[str, KnownCost] = {}
    if not ledger.is_file():
        return found
    with open_snapshot(ledger) as db:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            rows = db.execute(
                """SELECT key, coalesce(cost_microusd, 0), coalesce(n_prompt_tokens, 0)
                          + coalesce(n_completion_tokens, 0)
                   FROM attempts WHERE key IN (SELECT value FROM json_each(?))
                   AND state IN ('answered', 'truncated', 'refused')""",
                (json.dumps(keys[start : start + _KEYS_AT_ONCE]),),
            )
            found |= {key: KnownCost(cost, n_tokens) for key, cost, n_tokens in rows}
    return found


def mean_answer_tokens(ledger: Path, provider: str, model: str) -> float | None:
    """Return the mean tokens of a model's latest answers, hidden reasoning not counted.

    None where the ledger has no answer of this model.
    """
    if not ledger.is_file():
        return None
    with open_snapshot(ledger) as db:
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
    """What the ledger holds against the hard stop; 0 where there is none yet."""
    if not ledger.is_file():
        return 0
    with open_snapshot(ledger) as db:
        return int(db.execute("SELECT held_microusd FROM totals").fetchone()[0])


def _get_template(call: Mapping[str, Any]) -> tuple[object, object]:
    """What a request has in common with others of its make."""
    return {k: v for k, v in call.items() if k not in _PER_REQUEST_FIELDS}, call["messages"][:-1]
