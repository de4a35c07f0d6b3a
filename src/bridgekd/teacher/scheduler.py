"""Carries out one buying: admits requests in rank order, sends them, and keeps what came of them.

The one idea: one loop admits (`cost/budget.py`) and many tasks carry out; only the loop
decides, so what is bought never depends on which answer was fastest. It knows no transport: it
asks for properties and sends through one connection.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bridgekd.api_client.chat_completion import CompletionBody, RequestCost, parse_completion
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.rate_limit import compute_backoff_s
from bridgekd.api_client.request_key import TeacherRequest, build_request, compute_request_key
from bridgekd.cost.budget import BudgetTracker, Limits, StopReason
from bridgekd.cost.request_cost import format_microusd
from bridgekd.errors import OverbilledError, TeacherUnavailableError
from bridgekd.ledger.ledger import Purpose
from bridgekd.ledger.sql import StoredAnswer
from bridgekd.records import Completion
from bridgekd.teacher.attempts import Attempts
from bridgekd.teacher.pending_request import (
    AcceptFunction,
    PendingRequest,
    build_completion,
    check_prompt_length,
    compute_max_cost,
    to_budget_use,
    tokens_of,
)
from bridgekd.teacher.throttle import Throttle
from bridgekd.teacher.transport import TransportContext

MAX_BACKOFF_S = 60.0
MAX_RETRY_AFTER_S = 300.0  # who asks for more is down for now
INTERRUPT_GRACE_S = 5.0  # for answers in flight when a person stops the buying
RESERVE_AHEAD = (
    0.25  # of what may be in flight: calls that are reserved already and wait for their turn
)
MAX_FIRST_REFUSALS = 8  # so many and no answer: it is the recipe, not the questions
MAX_REFUSALS_IN_A_ROW = 25  # between answers: as likely the account as the questions
RESUME_HINT = "All answers so far are saved. Fix this and run the same command again to continue."


@dataclass(frozen=True, slots=True)
class PurchaseSpec:
    """What a buying is bound to. `accept` says which answers count against limits.accepted."""

    context: TransportContext
    limits: Limits
    run: str
    purpose: Purpose
    accept: AcceptFunction | None = None
    backoff_s: float = 0.5
    on_progress: Callable[[int], None] = field(default=lambda done: None)


class RequestScheduler:
    """The state of one `buy`: what is admitted, what is in flight, what is bought."""

    def __init__(self, terms: PurchaseSpec) -> None:
        context = terms.context
        self.rows: dict[int, Completion] = {}
        self.n_sent = 0
        self.n_reused = 0
        self.spent_microusd = 0
        self.budget = BudgetTracker(terms.limits)
        self._terms, self._answers = terms, context.answers
        self._commits, self._ledger = context.commits, context.commits.ledger
        self._teacher, self._transport = context.resolved.teacher, context.resolved.transport
        self._host, self._price = context.resolved.host, context.resolved.price
        self._connection = self._transport.open(context)
        self._attempts = Attempts(self._commits, terms.run, terms.purpose, self._price)
        most = self._connection.max_in_flight
        limited = self._transport.supports_rate_limits
        self._max_admitted = most * (1 + RESERVE_AHEAD) if limited else most
        self._throttle = Throttle(most, self._teacher if limited else None)
        self._in_flight: dict[str, asyncio.Task[None]] = {}  # by key: admitted and not yet final
        self._sent: dict[str, float] = {}  # by key: when the open attempt was sent
        self._in_batches = {key for b in self._ledger.open_batches() for key in b.attempts}
        self._admission_waits = False
        self._n_waiting = 0  # of those in flight: for an answer, or for room in the ledger
        self._stopping = False
        self._broken = False  # an answer ended the buying: no further call goes out
        self._n_refused = 0  # since the last answer
        self._refusal = ""  # what the last one said
        self._n_heard = 0  # answers that arrived or were recalled
        self._heard_at = -math.inf
        self._lost_microusd = 0  # what calls may have been billed that gave no answer

    async def run(self, requests: Iterable[TeacherRequest]) -> StopReason:
        """Buys until the budget or the pool ends; on any other end, waits for what is in flight."""
        grace_s = self._teacher.timeout_s  # what is in flight may be paid, and nobody is in a hurry
        await self._connection.open()
        try:
            return await self._admit(requests)
        except asyncio.CancelledError:
            grace_s = min(self._teacher.timeout_s, INTERRUPT_GRACE_S)
            raise
        finally:
            try:
                await self._shut_down(grace_s)
            finally:
                await self._connection.close()

    async def _admit(self, requests: Iterable[TeacherRequest]) -> StopReason:
        for place, request in enumerate(requests):
            await asyncio.sleep(0)  # recalling a long ledger must not deafen us to Ctrl-C
            order = self._make_order(place, request)
            while order.key in self._in_flight:  # the same question twice: one answer serves both
                await self._wait_any()
            stored = self._ledger.find_answer(order.key)
            if stored is None and order.key in self._in_batches:
                stored = await self._wait_for_earlier(order)
            most = to_budget_use(order.max_cost, self._terms.accept is not None)
            if stored is not None:  # the same rule as when it was bought, and never past a limit
                most = most.maximum(to_budget_use(stored.bill, False))
            while lacking := self.budget.find_blocking_limit(most):
                if not self._in_flight:
                    await self._stop_if_all_refused()
                    return lacking
                await self._wait_any()
            if stored is not None:
                self._reuse_answer(order, stored)
                continue
            if self._answers is None:
                check_prompt_length(self._teacher.model, self._price, request.id, order.max_cost)
            await self._stop_if_all_refused(MAX_REFUSALS_IN_A_ROW)
            self.budget.reserve(most)
            while len(self._in_flight) >= self._max_admitted:
                await self._wait_any()
            self._in_flight[order.key] = asyncio.create_task(self._send_until_final(order))
        while self._in_flight:
            await self._wait_any()
        await self._stop_if_all_refused()
        return "pool"

    def _make_order(self, place: int, request: TeacherRequest) -> PendingRequest:
        call, known = build_request(self._teacher, request), self._answers
        if known is not None:
            most = known.get_cost(request)
        else:
            most = compute_max_cost(self._teacher, self._price, request)
        return PendingRequest(place, request, call, compute_request_key(call), most)

    def _reuse_answer(self, order: PendingRequest, stored: StoredAnswer) -> None:
        self.n_reused += 1
        if order.key in self._in_batches:  # it was not here before this buying began
            self._count(stored.state, stored.raw_response)
        else:
            self._n_heard += stored.state != "refused"
        reply = replace(parse_completion(stored.raw_response), state=stored.state)
        self.budget.reserve(to_budget_use(order.max_cost, self._terms.accept is not None))
        self._add_row(order, reply, stored.bill)

    async def _wait_for_earlier(self, order: PendingRequest) -> StoredAnswer | None:
        """The answer to a call that is in a batch of an earlier process, once that is over."""
        earlier = self._connection.find_earlier(order.key)
        if earlier is None:
            raise TeacherUnavailableError(
                f"Example {order.request.id} is in a batch that is not finished, and would be paid "
                f"for twice. Use teacher.transport: batch and the batch's own base_url, and run "
                f"the same command again."
            )
        while not earlier.done():
            await self._wait_any(earlier)
        earlier.result()
        return self._ledger.find_answer(order.key)

    async def _stop_if_all_refused(self, in_a_row: float = math.inf) -> None:
        """Refusals and nothing else: the recipe or the account is at fault, and the budget is not
        spent on it.
        """
        if self._answers is not None:
            return
        while self._n_refused >= (in_a_row if self._n_heard else MAX_FIRST_REFUSALS):
            if not self._in_flight:
                which = "last" if self._n_heard else "first"
                raise TeacherUnavailableError(
                    f"{self._host} refused the {which} {self._n_refused} requests and answered "
                    f"none of them (the last: {self._refusal}). Refused requests are not retried. "
                    f"Fix the account, or change the model, prompt or settings (this makes new "
                    f"requests). Then run the same command to continue."
                )
            await self._wait_any()

    async def _wait_any(self, *others: "asyncio.Task[None]") -> None:
        """Waits until a call in flight has ended, or another task; raises what a call raised."""
        self._admission_waits = True
        self._flush_if_idle()
        await asyncio.wait(
            [*self._in_flight.values(), *others], return_when=asyncio.FIRST_COMPLETED
        )
        self._admission_waits = False
        for key in [key for key, task in self._in_flight.items() if task.done()]:
            self._in_flight.pop(key).result()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Counts a call that can go on only when another one has ended."""
        self._n_waiting += 1
        asyncio.get_running_loop().call_soon(self._flush_if_idle)
        try:
            yield
        finally:
            self._n_waiting -= 1

    def _flush_if_idle(self) -> None:
        """Has what was collected sent, once nothing more can come before some of it has ended."""
        if self._admission_waits and self._n_waiting == len(self._in_flight):
            self._connection.flush()

    async def _send_until_final(self, order: PendingRequest) -> None:
        """Asks until there is an answer, with an attempt of its own for every try."""
        dice = random.Random(order.key)  # only for waiting times: it never changes a row
        n_failed = 0
        while True:
            while not await self._attempts.try_reserve(order):
                with self._waiting():
                    await self._attempts.wait_for_room()
            self.n_sent += 1
            outcome, is_served = await self._send(order)
            if outcome is None or outcome.kind in ("answered", "refused") or self._stopping:
                return
            n_failed += not is_served
            if n_failed >= self._teacher.max_attempts:
                raise TeacherUnavailableError(
                    f"{self._host} gave no answer for example {order.request.id} in {n_failed} "
                    f"tries (the last: {outcome.reason}). {RESUME_HINT}"
                )
            if self._transport.survives_process:
                continue  # it goes into the next batch
            wait_s = compute_backoff_s(max(1, n_failed), self._terms.backoff_s, MAX_BACKOFF_S, dice)
            if is_served and outcome.retry_after_s is not None:
                wait_s = 0.0  # the server said when, and the throttle keeps the calls apart
            await asyncio.sleep((outcome.retry_after_s or 0.0) + wait_s)

    async def _send(self, order: PendingRequest) -> tuple[RequestOutcome | None, bool]:
        """One attempt and its outcome, None where it was never sent; and whether it had to wait
        for a server that serves others: that is no sign of a dead one.
        """
        async with self._throttle.acquire(tokens_of(order.max_cost)) as sent_at:
            if self._broken:
                return None, False
            self._sent[order.key] = sent_at
            with self._waiting():
                outcome = await self._connection.send(order)
            try:  # no next call goes out before this one is judged
                outcome = await self._judge(order, outcome)
            except BaseException:
                self._broken = True
                raise
        if not outcome.rate_limited:
            return outcome, False
        self._throttle.record_rate_limit(sent_at)
        return outcome, self._is_other_served(sent_at)

    def _is_other_served(self, sent_at: float) -> bool:
        """Whether a call was answered since this one went out, or has been out for much longer
        than this one, which was refused, took.
        """
        now = asyncio.get_running_loop().time()
        oldest = min(self._sent.values(), default=now)
        return self._heard_at > sent_at or now - oldest > 2 * (now - sent_at) + 0.1

    async def _judge(self, order: PendingRequest, outcome: RequestOutcome) -> RequestOutcome:
        """Closes an attempt and keeps its row, or raises where the buying cannot go on."""
        try:
            outcome, reply, bill = await self._attempts.close(order, outcome)
        finally:
            del self._sent[order.key]
        self._throttle.refund_tokens(max(0, tokens_of(order.max_cost) - tokens_of(bill)))
        if outcome.kind in ("answered", "refused"):
            self._count(outcome.kind, outcome.reason)
            self._heard_at = asyncio.get_running_loop().time()
            self.spent_microusd += bill.cost_microusd
            self._add_row(order, reply, bill)
            self._check_tokens(order, bill)
        else:
            self._lost_microusd += bill.cost_microusd * (outcome.kind == "unknown")
            self._check_lost_cost(outcome)
            self._check_available(outcome)
        return outcome

    def _count(self, state: str, reason: str) -> None:
        """Counts the refusals since the last answer that is new in this buying."""
        if state == "refused":
            self._n_refused, self._refusal = self._n_refused + 1, reason[:300]
        else:
            self._n_refused, self._n_heard = 0, self._n_heard + 1

    def _add_row(self, order: PendingRequest, reply: CompletionBody, bill: RequestCost) -> None:
        """Makes the row of a final call and turns what was held for it into what it cost."""
        accept = self._terms.accept
        written = reply.text or reply.reasoning
        accepted = accept is not None and accept(order.request.id, reply.state, written)
        self.budget.settle(
            to_budget_use(order.max_cost, accept is not None), to_budget_use(bill, accepted)
        )
        self.rows[order.position] = build_completion(order, reply, bill)
        self._terms.on_progress(len(self.rows))

    def _check_tokens(self, order: PendingRequest, bill: RequestCost) -> None:
        """Dollars are checked by the ledger; tokens only matter where the run limits them."""
        billed, most = tokens_of(bill), tokens_of(order.max_cost)
        if self.budget.limits.tokens is not None and billed > most:
            raise OverbilledError(
                f"An answer of {self._teacher.model} was billed as {billed:,} tokens, but by its "
                f"prompt and max_tokens it could be {most:,} at most, so no limit in tokens can be "
                f"kept. It is saved in {self._ledger.path}. Limit queries or dollars instead."
            )

    def _check_lost_cost(self, outcome: RequestOutcome) -> None:
        """Calls without an answer do not count against the budget, so that what is bought depends
        on rank alone; but they may be billed, and never without end.
        """
        limit = self.budget.limits.microusd
        if limit is not None and self._lost_microusd > limit:
            raise TeacherUnavailableError(
                f"Calls to {self._host} that gave no answer (the last: {outcome.reason}) may have "
                f"been billed {format_microusd(self._lost_microusd)}, more than the whole budget. "
                f"{RESUME_HINT}"
            )

    def _check_available(self, outcome: RequestOutcome) -> None:
        reason = outcome.reason if outcome.kind == "down" else ""
        if (outcome.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
            reason = f"it wants {outcome.retry_after_s:.0f} s of rest ({outcome.reason})"
        if reason and not self._stopping:
            raise TeacherUnavailableError(f"{self._host} cannot be asked: {reason}. {RESUME_HINT}")

    async def _shut_down(self, grace_s: float) -> None:
        """Gives answers in flight, which may be paid, `grace_s` to come; then closes the rest."""
        self._stopping, tasks = True, self._in_flight
        for key in tasks.keys() - self._sent.keys():
            tasks[key].cancel()
        unsent = await self._connection.stop()
        interrupted = False
        if tasks:
            try:
                await asyncio.wait(tasks.values(), timeout=grace_s)
            except asyncio.CancelledError:
                interrupted = True
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await self._commits.drain()
        await self._attempts.release(unsent | (self._attempts.open.keys() - self._sent.keys()))
        # What had arrived is settled; the rest is unknown, or in a batch.
        await self._commits.commit(self._ledger.recover)
        if interrupted:
            raise asyncio.CancelledError
