"""Buys teacher answers in rank order until the pool or the budget ends.

This is the synchronous face; what is asynchronous stays in `buying.py` and `chat.py`, which are
loaded only when something is bought.
"""

import os
import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridgekd.config import Teacher
from bridgekd.core.admission import Ended, Limits
from bridgekd.core.calls import TeacherRequest, call_key, call_request
from bridgekd.errors import BadInput
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.progress import Progress, silent
from bridgekd.records import Completion
from bridgekd.teacher.orders import Accept

if TYPE_CHECKING:
    from bridgekd.teacher.commits import Commits
    from bridgekd.teacher.lines import Line

__all__ = [
    "Accept",
    "Limits",
    "Purchase",
    "TeacherRequest",
    "api_key",
    "buy",
    "call_key",
    "call_request",
    "key_in",
]

BACKOFF_S = 0.5  # the first wait; doubled at each further try


@dataclass(frozen=True, slots=True)
class Purchase:
    """What one buying gave. `completions` are in rank order.

    `ended` says which limit ended it, or "pool" where every request was served. Charged is what
    counts against the run's budget, recalled answers included; `spent_microusd` only what was new.
    """

    completions: tuple[Completion, ...]
    ended: Ended
    n_calls_sent: int
    n_recalled: int
    charged_microusd: int
    charged_tokens: int
    spent_microusd: int
    seconds: float


def api_key(teacher: Teacher) -> str:
    """The teacher's key; "none" where none is needed."""
    return key_in(None if teacher.transport == "replay" else teacher.api_key_env, "teacher")


def key_in(name: str | None, section: str) -> str:
    """The key from the environment variable that a section of the recipe names; "none" where it
    names none.
    """
    if name is None:
        return "none"
    key = os.environ.get(name, "").strip()
    if not key:
        raise BadInput(
            f"The environment variable {name} holds no key; set it, or give "
            f"{section}.api_key_env: null for a server that wants none."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadInput(f"The key in the environment variable {name} has characters no key has.")
    return key


def buy(
    requests: Iterable[TeacherRequest],
    ledger: Ledger,
    *,
    teacher: Teacher,
    limits: Limits,
    run: str,
    purpose: Purpose = "train",
    api_key: str,
    progress: Progress = silent,
    backoff_s: float = BACKOFF_S,
    accept: Accept | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Purchase:
    """Answers to `requests`, in the order given (rank order), as far as `limits` reach.

    An answered call is recalled from the ledger and charged what it first cost. Raises HardStop,
    TeacherDown or Overbilled with everything that arrived in the ledger, and BadInput, before any
    call, where dollars are limited but the price is unknown. `accept(id, state, text)` says which
    answers count against `limits.accepted`; `note` gets sentences about batches.
    """
    limited = limits.microusd is not None or ledger.hard_stop_microusd is not None
    if limited and teacher.tariff is None and teacher.transport != "replay":
        raise BadInput(
            f"Dollars are limited but the price of {teacher.model} is unknown; give teacher.price "
            f"in dollars per million tokens (0 and 0 for a free server)."
        )
    # Late, because a plan needs neither asyncio nor openai.
    from bridgekd.teacher.buying import Buying, Terms
    from bridgekd.teacher.commits import Commits
    from bridgekd.teacher.loops import run_to_end

    started = time.monotonic()
    total = _count(requests, limits)
    terms = Terms(
        teacher=teacher,
        limits=limits,
        run=run,
        purpose=purpose,
        accept=accept,
        backoff_s=backoff_s,
        tell=lambda done: progress("teacher", done, total),
    )
    terms.tell(0)
    commits = Commits(ledger)
    buying = Buying(commits, terms, _line(teacher, api_key, commits, note))
    ended = run_to_end(buying.go(requests))
    if (n := len(buying.rows)) < total:  # a limit ended it
        progress("teacher", n, n)
    return Purchase(
        completions=tuple(buying.rows[place] for place in sorted(buying.rows)),
        ended=ended,
        n_calls_sent=buying.n_sent,
        n_recalled=buying.n_recalled,
        charged_microusd=buying.account.charged.microusd,
        charged_tokens=buying.account.charged.tokens,
        spent_microusd=buying.spent_microusd,
        seconds=time.monotonic() - started,
    )


def _count(requests: Iterable[TeacherRequest], limits: Limits) -> int:
    """How many requests there are at most; 0 where that is unknown."""
    n_requests = len(requests) if isinstance(requests, Sized) else None
    return min((n for n in (limits.queries, n_requests) if n is not None), default=0)


def _line(
    teacher: Teacher, api_key: str, commits: "Commits", note: Callable[[str], None]
) -> "Line":
    """The way to this teacher."""
    if teacher.transport == "replay":
        from bridgekd.teacher.replay import ReplayLine

        return ReplayLine(teacher)
    if teacher.transport == "batch":
        from bridgekd.teacher.batches import BatchLine

        return BatchLine(teacher, api_key, commits, note)
    from bridgekd.teacher.chat import ChatLine

    return ChatLine(teacher, api_key)
