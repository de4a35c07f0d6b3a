"""Buys teacher answers in rank order until the pool or the budget ends.

This is the synchronous face; what is asynchronous stays in `buying.py` and the transports.
"""

import os
import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass

from bridgekd.config import Teacher
from bridgekd.core.admission import Ended, Limits
from bridgekd.core.calls import TeacherRequest
from bridgekd.errors import BadInput
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.progress import Progress, silent
from bridgekd.records import Completion
from bridgekd.teacher.buying import Buying, Terms
from bridgekd.teacher.commits import Commits
from bridgekd.teacher.loops import run_to_end
from bridgekd.teacher.orders import Accept
from bridgekd.teacher.transport import TransportContext
from bridgekd.teacher.transports import resolve_teacher

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
    needs_key = resolve_teacher(teacher).transport.needs_api_key
    return key_in(teacher.api_key_env if needs_key else None, "teacher")


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
    resolved = resolve_teacher(teacher)
    if limits.microusd is not None or ledger.hard_stop_microusd is not None:
        resolved.check_price()
    started = time.monotonic()
    total = _count(requests, limits)
    context = TransportContext(resolved, api_key, Commits(ledger), note, resolved.load_answers())
    terms = Terms(
        context=context,
        limits=limits,
        run=run,
        purpose=purpose,
        accept=accept,
        backoff_s=backoff_s,
        tell=lambda done: progress("teacher", done, total),
    )
    terms.tell(0)
    buying = Buying(terms)
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
