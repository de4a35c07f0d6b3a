"""Purchases teacher answers in rank order until the pool or the budget ends.

This is the synchronous interface. The scheduler and the transports are asynchronous.
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
from bridgekd.teacher.purchase_spec import AcceptFunction, PurchaseSpec, ignore_answer
from bridgekd.teacher.scheduler import RequestScheduler
from bridgekd.teacher.transport import TransportContext
from bridgekd.teacher.transports import resolve_teacher

INITIAL_BACKOFF_S = 0.5  # doubled after each further failure


@dataclass(frozen=True, slots=True)
class PurchaseResult:
    """The result of one purchase. `completions` are in rank order.

    `stop_reason` is the limit that ended it, or "pool" if every request has a row. The charged
    amounts count against the run's budget and include reused answers; `spent_microusd` is new.
    `n_at_reserve` rows came without usable token counts and are charged their maximum.
    """

    completions: tuple[Completion, ...]
    stop_reason: StopReason
    n_requests_sent: int
    n_reused: int
    n_at_reserve: int
    charged_microusd: int
    charged_tokens: int
    spent_microusd: int
    seconds: float


def read_api_key(teacher: TeacherOptions) -> str:
    """Return the teacher's key; "none" if it needs none."""
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
    on_answer: Callable[[str, str, str], None] = ignore_answer,
    note: Callable[[str], None] = lambda text: None,
) -> PurchaseResult:
    """Return the answers to `requests`, in their order (rank order), within `limits`.

    An answer in the ledger is reused and charged its original cost. `accept(id, state, text)`
    decides which answers count in `limits.accepted`; `on_answer`, with the same arguments, may
    raise to stop the purchase; `note` receives sentences about batches.
    Raises HardLimitError, TeacherUnavailableError or OverbilledError with every answer that arrived
    in the ledger. Raises InputError, before any request, if dollars are limited and the price is
    unknown.
    """
    resolved = resolve_teacher(teacher)
    if limits.microusd is not None or ledger.hard_limit_microusd is not None:
        resolved.check_price()
    started = time.monotonic()
    total, answers = _count_requests(requests, limits), resolved.load_answers()
    spec = PurchaseSpec(
        context=TransportContext(resolved, api_key, GroupCommitter(ledger), note, answers),
        limits=limits,
        run=run,
        purpose=purpose,
        accept=accept,
        on_answer=on_answer,
        backoff_s=backoff_s,
        on_progress=lambda done: progress("teacher", done, total),
    )
    spec.on_progress(0)
    scheduler = RequestScheduler(spec)
    stop_reason = run_async(scheduler.run(requests))
    if scheduler.n_at_reserve:
        note(
            f"{scheduler.n_at_reserve:,} of {len(scheduler.rows):,} answers of {resolved.host} "
            "came without usable token counts. Each is charged the most that it can cost."
        )
    if (n := len(scheduler.rows)) < total:  # a limit ended it
        progress("teacher", n, n)
    return PurchaseResult(
        completions=tuple(scheduler.rows[position] for position in sorted(scheduler.rows)),
        stop_reason=stop_reason,
        n_requests_sent=scheduler.n_sent,
        n_reused=scheduler.n_reused,
        n_at_reserve=scheduler.n_at_reserve,
        charged_microusd=scheduler.budget.charged.microusd,
        charged_tokens=scheduler.budget.charged.tokens,
        spent_microusd=scheduler.spent_microusd,
        seconds=time.monotonic() - started,
    )


def _count_requests(requests: Iterable[TeacherRequest], limits: Limits) -> int:
    """Return the maximum number of requests; 0 if it is unknown."""
    n_requests = len(requests) if isinstance(requests, Sized) else None
    return min((n for n in (limits.queries, n_requests) if n is not None), default=0)
