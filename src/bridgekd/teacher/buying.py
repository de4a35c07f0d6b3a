"""Carries out one buying: admits requests in rank order, sends them, and keeps what came of them.

The one idea: one loop admits (`core/admission.py`) and many tasks carry out; only the loop
decides, so what is bought never depends on which answer was fastest. It knows no transport: it
asks for properties and sends through one connection.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bridgekd.core.admission import Account, Ended, Limits
from bridgekd.core.calls import TeacherRequest, call_key, call_request
from bridgekd.core.costs import dollars
from bridgekd.core.pace import backoff
from bridgekd.core.replies import Bill, Reply, read_reply
from bridgekd.errors import Overbilled, TeacherDown
from bridgekd.ledger.attempts import StoredCall
from bridgekd.ledger.ledger import Purpose
from bridgekd.records import Completion
from bridgekd.teacher.attempts import Attempts
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.orders import (
    Accept,
    Order,
    bound_of,
    charge,
    completion_of,
    refuse_long,
    tokens_of,
)
from bridgekd.teacher.throttle import Throttle
from bridgekd.teacher.transport import TransportContext

LONGEST_BACKOFF_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0  # who asks for more is down for now
INTERRUPT_GRACE_S = 5.0  # for answers in flight when a person stops the buying
AHEAD = 0.25  # of what may be in flight: calls that are reserved already and wait for their turn
REFUSALS_AT_THE_START = 8  # so many and no answer: it is the recipe, not the questions
REFUSALS_IN_A_ROW = 25  # between answers: as likely the account as the questions
GO_ON = "All answers so far are saved. Fix this and run the same command again to continue."


@dataclass(frozen=True, slots=True)
class Terms:
    """What a buying is bound to. `accept` says which answers count against limits.accepted."""

    context: TransportContext
    limits: Limits
    run: str
    purpose: Purpose
    accept: Accept | None = None
    backoff_s: float = 0.5
    tell: Callable[[int], None] = field(default=lambda done: None)


class Buying:
    """The state of one `buy`: what is admitted, what is in flight, what is bought."""

    def __init__(self, terms: Terms) -> None:
        context = terms.context
        self.rows: dict[int, Completion] = {}
        self.n_sent = 0
        self.n_recalled = 0
        self.spent_microusd = 0
        self.account = Account(terms.limits)
        self._terms, self._answers = terms, context.answers
        self._commits, self._ledger = context.commits, context.commits.ledger
        self._teacher, self._transport = context.resolved.teacher, context.resolved.transport
        self._host, self._price = context.resolved.host, context.resolved.price
        self._connection = self._transport.open(context)
        self._attempts = Attempts(self._commits, terms.run, terms.purpose, self._price)
        most = self._connection.max_in_flight
        limited = self._transport.supports_rate_limits
        self._max_admitted = most * (1 + AHEAD) if limited else most
        self._throttle = Throttle(most, self._teacher if limited else None)
        self._flying: dict[str, asyncio.Task[None]] = {}  # by key: admitted and not yet final
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

    async def go(self, requests: Iterable[TeacherRequest]) -> Ended:
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
                await self._wind_up(grace_s)
            finally:
                await self._connection.close()

    async def _admit(self, requests: Iterable[TeacherRequest]) -> Ended:
        for place, request in enumerate(requests):
            await asyncio.sleep(0)  # recalling a long ledger must not deafen us to Ctrl-C
            order = self._make_order(place, request)
            while order.key in self._flying:  # the same question twice: one answer serves both
                await self._land_some()
            stored = self._ledger.recall(order.key)
            if stored is None and order.key in self._in_batches:
                stored = await self._wait_for_earlier(order)
            most = charge(order.most, self._terms.accept is not None)
            if stored is not None:  # the same rule as when it was bought, and never past a limit
                most = most.most(charge(stored.bill, False))
            while lacking := self.account.lacking(most):
                if not self._flying:
                    await self._see_answers_first()
                    return lacking
                await self._land_some()
            if stored is not None:
                self._recall(order, stored)
                continue
            if self._answers is None:
                refuse_long(self._teacher.model, self._price, request.id, order.most)
            await self._see_answers_first(REFUSALS_IN_A_ROW)
            self.account.hold(most)
            while len(self._flying) >= self._max_admitted:
                await self._land_some()
            self._flying[order.key] = asyncio.create_task(self._fly(order))
        while self._flying:
            await self._land_some()
        await self._see_answers_first()
        return "pool"

    def _make_order(self, place: int, request: TeacherRequest) -> Order:
        call, known = call_request(self._teacher, request), self._answers
        if known is not None:
            most = known.get_cost(request)
        else:
            most = bound_of(self._teacher, self._price, request)
        return Order(place, request, call, call_key(call), most)

    def _recall(self, order: Order, stored: StoredCall) -> None:
        self.n_recalled += 1
        if order.key in self._in_batches:  # it was not here before this buying began
            self._count(stored.state, stored.raw_response)
        else:
            self._n_heard += stored.state != "refused"
        reply = replace(read_reply(stored.raw_response), state=stored.state)
        self.account.hold(charge(order.most, self._terms.accept is not None))
        self._keep(order, reply, stored.bill)

    async def _wait_for_earlier(self, order: Order) -> StoredCall | None:
        """The answer to a call that is in a batch of an earlier process, once that is over."""
        earlier = self._connection.find_earlier(order.key)
        if earlier is None:
            raise TeacherDown(
                f"Example {order.request.id} is in a batch that is not finished, and would be paid "
                f"for twice. Use teacher.transport: batch and the batch's own base_url, and run "
                f"the same command again."
            )
        while not earlier.done():
            await self._land_some(earlier)
        earlier.result()
        return self._ledger.recall(order.key)

    async def _see_answers_first(self, in_a_row: float = math.inf) -> None:
        """Refusals and nothing else: the recipe or the account is at fault, and the budget is not
        spent on it.
        """
        if self._answers is not None:
            return
        while self._n_refused >= (in_a_row if self._n_heard else REFUSALS_AT_THE_START):
            if not self._flying:
                which = "last" if self._n_heard else "first"
                raise TeacherDown(
                    f"{self._host} refused the {which} {self._n_refused} requests and answered "
                    f"none of them (the last: {self._refusal}). Refused requests are not retried. "
                    f"Fix the account, or change the model, prompt or settings (this makes new "
                    f"requests). Then run the same command to continue."
                )
            await self._land_some()

    async def _land_some(self, *others: "asyncio.Task[None]") -> None:
        """Waits until a call in flight has ended, or another task; raises what a call raised."""
        self._admission_waits = True
        self._flush_if_idle()
        await asyncio.wait([*self._flying.values(), *others], return_when=asyncio.FIRST_COMPLETED)
        self._admission_waits = False
        for key in [key for key, task in self._flying.items() if task.done()]:
            self._flying.pop(key).result()

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
        if self._admission_waits and self._n_waiting == len(self._flying):
            self._connection.flush()

    async def _fly(self, order: Order) -> None:
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
            if n_failed >= self._teacher.max_tries:
                raise TeacherDown(
                    f"{self._host} gave no answer for example {order.request.id} in {n_failed} "
                    f"tries (the last: {outcome.reason}). {GO_ON}"
                )
            if self._transport.survives_process:
                continue  # it goes into the next batch
            wait_s = backoff(max(1, n_failed), self._terms.backoff_s, LONGEST_BACKOFF_S, dice)
            if is_served and outcome.retry_after_s is not None:
                wait_s = 0.0  # the server said when, and the throttle keeps the calls apart
            await asyncio.sleep((outcome.retry_after_s or 0.0) + wait_s)

    async def _send(self, order: Order) -> tuple[Outcome | None, bool]:
        """One attempt and its outcome, None where it was never sent; and whether it had to wait
        for a server that serves others: that is no sign of a dead one.
        """
        async with self._throttle.acquire(tokens_of(order.most)) as sent_at:
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
        if not outcome.throttled:
            return outcome, False
        self._throttle.record_rate_limit(sent_at)
        return outcome, self._others_are_served(sent_at)

    def _others_are_served(self, sent_at: float) -> bool:
        """Whether a call was answered since this one went out, or has been out for much longer
        than this one, which was refused, took.
        """
        now = asyncio.get_running_loop().time()
        oldest = min(self._sent.values(), default=now)
        return self._heard_at > sent_at or now - oldest > 2 * (now - sent_at) + 0.1

    async def _judge(self, order: Order, outcome: Outcome) -> Outcome:
        """Closes an attempt and keeps its row, or raises where the buying cannot go on."""
        try:
            outcome, reply, bill = await self._attempts.close(order, outcome)
        finally:
            del self._sent[order.key]
        self._throttle.refund_tokens(max(0, tokens_of(order.most) - tokens_of(bill)))
        if outcome.kind in ("answered", "refused"):
            self._count(outcome.kind, outcome.reason)
            self._heard_at = asyncio.get_running_loop().time()
            self.spent_microusd += bill.cost_microusd
            self._keep(order, reply, bill)
            self._check_tokens(order, bill)
        else:
            self._lost_microusd += bill.cost_microusd * (outcome.kind == "unknown")
            self._check_lost(outcome)
            self._check_down(outcome)
        return outcome

    def _count(self, state: str, reason: str) -> None:
        """Counts the refusals since the last answer that is new in this buying."""
        if state == "refused":
            self._n_refused, self._refusal = self._n_refused + 1, reason[:300]
        else:
            self._n_refused, self._n_heard = 0, self._n_heard + 1

    def _keep(self, order: Order, reply: Reply, bill: Bill) -> None:
        """Makes the row of a final call and turns what was held for it into what it cost."""
        accept = self._terms.accept
        written = reply.text or reply.reasoning
        accepted = accept is not None and accept(order.request.id, reply.state, written)
        self.account.settle(charge(order.most, accept is not None), charge(bill, accepted))
        self.rows[order.place] = completion_of(order, reply, bill)
        self._terms.tell(len(self.rows))

    def _check_tokens(self, order: Order, bill: Bill) -> None:
        """Dollars are checked by the ledger; tokens only matter where the run limits them."""
        billed, most = tokens_of(bill), tokens_of(order.most)
        if self.account.limits.tokens is not None and billed > most:
            raise Overbilled(
                f"An answer of {self._teacher.model} was billed as {billed:,} tokens, but by its "
                f"prompt and max_tokens it could be {most:,} at most, so no limit in tokens can be "
                f"kept. It is saved in {self._ledger.path}. Limit queries or dollars instead."
            )

    def _check_lost(self, outcome: Outcome) -> None:
        """Calls without an answer do not count against the budget, so that what is bought depends
        on rank alone; but they may be billed, and never without end.
        """
        limit = self.account.limits.microusd
        if limit is not None and self._lost_microusd > limit:
            raise TeacherDown(
                f"Calls to {self._host} that gave no answer (the last: {outcome.reason}) may have "
                f"been billed {dollars(self._lost_microusd)}, more than the whole budget. {GO_ON}"
            )

    def _check_down(self, outcome: Outcome) -> None:
        reason = outcome.reason if outcome.kind == "down" else ""
        if (outcome.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            reason = f"it wants {outcome.retry_after_s:.0f} s of rest ({outcome.reason})"
        if reason and not self._stopping:
            raise TeacherDown(f"{self._host} cannot be asked: {reason}. {GO_ON}")

    async def _wind_up(self, grace_s: float) -> None:
        """Gives answers in flight, which may be paid, `grace_s` to come; then closes the rest."""
        self._stopping, tasks = True, self._flying
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
        await self._commits.do(self._ledger.recover)
        if interrupted:
            raise asyncio.CancelledError
