"""Buys teacher answers in rank order until the pool or the budget ends.

This is the synchronous face; what is asynchronous stays in `buying.py` and the transports.
"""

import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass

from bridgekd.api_client.openai_client import read_key_variable
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.api_client.run_async import run_async
from bridgekd.cost.budget import Limits, StopReason
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import TeacherOptions
from bridgekd.records import Completion
from bridgekd.teacher.group_commit import GroupCommitter
from bridgekd.teacher.pending_request import AcceptFunction
from bridgekd.teacher.scheduler import PurchaseSpec, RequestScheduler
from bridgekd.teacher.transport import TransportContext
from bridgekd.teacher.transports import resolve_teacher

INITIAL_BACKOFF_S = 0.5  # the first wait; doubled at each further try


@dataclass(frozen=True, slots=True)
class PurchaseResult:
    """What one buying gave. `completions` are in rank order.

    `ended` says which limit ended it, or "pool" where every request was served. Charged is what
    counts against the run's budget, recalled answers included; `spent_microusd` only what was new.
    """

    completions: tuple[Completion, ...]
    stop_reason: StopReason
    n_requests_sent: int
    n_reused: int
    charged_microusd: int
    charged_tokens: int
    spent_microusd: int
    seconds: float


def read_api_key(teacher: TeacherOptions) -> str:
    """The teacher's key; "none" where none is needed."""
    needs_key = resolve_teacher(teacher).transport.needs_api_key
    return read_key_variable(teacher.api_key_env if needs_key else None, "teacher")


def buy_answers(
    requests: Iterable[TeacherRequest],
    ledger: Ledger,
    *,
    teacher: TeacherOptions,
    limits: Limits,
    run: str,
    purpose: Purpose = "train",
    api_key: str,
    progress: Progress = ignore_progress,
    backoff_s: float = INITIAL_BACKOFF_S,
    accept: AcceptFunction | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> PurchaseResult:
    """Answers to `requests`, in the order given (rank order), as far as `limits` reach.

    An answered call is recalled from the ledger and charged what it first cost. Raises
    HardLimitError, TeacherUnavailableError or OverbilledError with everything that arrived in the
    ledger, and InputError, before any call, where dollars are limited but the price is unknown.
    `accept(id, state, text)` says which answers count against `limits.accepted`; `note` gets
    sentences about batches.
    """
    resolved = resolve_teacher(teacher)
    if limits.microusd is not None or ledger.hard_stop_microusd is not None:
        resolved.check_price()
    started = time.monotonic()
    total = _count(requests, limits)
    context = TransportContext(
        resolved, api_key, GroupCommitter(ledger), note, resolved.load_answers()
    )
    terms = PurchaseSpec(
        context=context,
        limits=limits,
        run=run,
        purpose=purpose,
        accept=accept,
        backoff_s=backoff_s,
        on_progress=lambda done: progress("teacher", done, total),
    )
    terms.on_progress(0)
    buying = RequestScheduler(terms)
    ended = run_async(buying.run(requests))
    if (n := len(buying.rows)) < total:  # a limit ended it
        progress("teacher", n, n)
    return PurchaseResult(
        completions=tuple(buying.rows[place] for place in sorted(buying.rows)),
        stop_reason=ended,
        n_requests_sent=buying.n_sent,
        n_reused=buying.n_reused,
        charged_microusd=buying.budget.charged.microusd,
        charged_tokens=buying.budget.charged.tokens,
        spent_microusd=buying.spent_microusd,
        seconds=time.monotonic() - started,
    )


def _count(requests: Iterable[TeacherRequest], limits: Limits) -> int:
    """How many requests there are at most; 0 where that is unknown."""
    n_requests = len(requests) if isinstance(requests, Sized) else None
    return min((n for n in (limits.queries, n_requests) if n is not None), default=0)
