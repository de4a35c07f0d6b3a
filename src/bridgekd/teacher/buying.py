"""Carries out one buying: admits calls in rank order, sends them, and writes what came of them.

The one idea: one loop admits (`core/admission.py`) and many tasks carry out; only the loop
decides, so what is bought never depends on which answer was fastest. Each attempt is durable in
the ledger before its socket opens, and its response before anything reads it.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from bridgekd.config import Teacher
from bridgekd.core.admission import Account, Ended, Limits
from bridgekd.core.calls import TeacherRequest, call_key, call_request
from bridgekd.core.costs import dollars
from bridgekd.core.pace import Pace, backoff
from bridgekd.core.replies import Bill, Reply, bill_of, failure_in, read_reply
from bridgekd.errors import BridgekdError, HardStop, Overbilled, TeacherDown
from bridgekd.ledger.attempts import OpenAttempt, StoredCall
from bridgekd.ledger.ledger import Purpose
from bridgekd.records import Completion
from bridgekd.teacher.caps import Caps
from bridgekd.teacher.commits import Commits
from bridgekd.teacher.gate import Gate
from bridgekd.teacher.lines import Line, Outcome, host_of
from bridgekd.teacher.orders import Accept, Order, bound_of, charge, completion_of, refuse_long

LONGEST_BACKOFF_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0  # who asks for more is down for now
INTERRUPT_GRACE_S = 5.0  # for answers in flight when a person stops the buying
AHEAD = 0.25  # of the width: calls that are reserved already and wait at the gate
REFUSALS_AT_THE_START = 8  # so many and no answer: it is the recipe, not the questions
REFUSALS_IN_A_ROW = 25  # between answers: as likely the account as the questions
GO_ON = "All answers so far are saved; mend this and run the same command again to go on."


@dataclass(frozen=True, slots=True)
class Terms:
    """What a buying is bound to. `accept` says which answers count against limits.accepted."""

    teacher: Teacher
    limits: Limits
    run: str
    purpose: Purpose
    accept: Accept | None = None
    backoff_s: float = 0.5
    tell: Callable[[int], None] = field(default=lambda done: None)


class Buying:
    """The state of one `buy`: what is admitted, what is in flight, what is bought."""

    def __init__(self, commits: Commits, terms: Terms, line: Line) -> None:
        self.rows: dict[int, Completion] = {}
        self.n_sent = 0
        self.n_recalled = 0
        self.spent_microusd = 0
        self.account = Account(terms.limits)
        self._ledger = commits.ledger
        self._terms = terms
        self._teacher = terms.teacher
        self._line = line
        self._pace = Pace(line.width)
        self._gate = Gate(self._pace)
        self._caps = Caps(terms.teacher)
        self._commits = commits
        self._flying: dict[str, asyncio.Task[None]] = {}  # by key: admitted and not yet final
        self._open: dict[str, int] = {}  # by key: the attempt that is in the ledger as reserved
        self._sent: dict[str, float] = {}  # of the open ones, those that the line was asked, when
        self._adopted: dict[str, OpenAttempt] = {}  # of the open ones, those of an earlier process
        self._closed = asyncio.Event()  # an attempt was closed: the hard stop may have room again
        self._n_closed = 0
        self._blocked: int | None = None  # the first place that the hard stop had no room for
        self._in_batches = {key for b in self._ledger.open_batches() for key in b.attempts}
        self._stopping = False
        self._broken = False  # an answer ended the buying: no further call goes out
        self._n_refused = 0  # since the last answer
        self._refusal = ""  # what the last one said
        self._n_heard = 0  # answers that arrived or were recalled
        self._lost_microusd = 0  # what calls may have been billed that gave no answer

    async def go(self, requests: Iterable[TeacherRequest]) -> Ended:
        """Buys until the budget or the pool ends; on any other end, waits for what is in flight."""
        grace_s = self._teacher.timeout_s  # what is in flight may be paid, and nobody is in a hurry
        async with self._line:
            try:
                return await self._admit(requests)
            except asyncio.CancelledError:
                grace_s = min(self._teacher.timeout_s, INTERRUPT_GRACE_S)
                raise
            finally:
                await self._wind_up(grace_s)

    async def _admit(self, requests: Iterable[TeacherRequest]) -> Ended:
        for place, request in enumerate(requests):
            await asyncio.sleep(0)  # recalling a long ledger must not deafen us to Ctrl-C
            order = self._order(place, request)
            while order.key in self._flying:  # the same question twice: one answer serves both
                await self._land_some()
            stored = self._ledger.recall(order.key)
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
            refuse_long(self._teacher, request.id, order.most)
            self._refuse_twice(order)
            await self._see_answers_first(REFUSALS_IN_A_ROW)
            self.account.hold(charge(order.most, self._terms.accept is not None))
            while len(self._flying) >= self._line.width * (1 + AHEAD):
                await self._land_some()
            self._flying[order.key] = asyncio.create_task(self._fly(order))
        while self._flying:
            await self._land_some()
        await self._see_answers_first()
        return "pool"

    def _order(self, place: int, request: TeacherRequest) -> Order:
        call = call_request(self._teacher, request)
        key, most = call_key(call), self._line.most(request, bound_of(self._teacher, request))
        if (sent := self._line.adopted.get(key)) is not None:  # the price may have changed since
            most = replace(most, cost_microusd=max(most.cost_microusd, sent.reserve_microusd))
        return Order(place, request, call, key, most)

    def _recall(self, order: Order, stored: StoredCall) -> None:
        self.n_recalled += 1
        self._n_heard += stored.state != "refused"
        reply = replace(read_reply(stored.raw_response), state=stored.state)
        self.account.hold(charge(order.most, self._terms.accept is not None))
        self._keep(order, reply, stored.bill)

    def _refuse_twice(self, order: Order) -> None:
        """A call in a batch that this line does not watch may be answered there any time."""
        if order.key in self._in_batches and order.key not in self._line.adopted:
            raise TeacherDown(
                f"Example {order.request.id} is in a batch that is not finished, and would be paid "
                f"for twice; take teacher.transport: batch and the batch's own base_url, and run "
                f"the same command again."
            )

    async def _see_answers_first(self, in_a_row: float = math.inf) -> None:
        """Refusals and nothing else: the recipe or the account is at fault, and the budget is not
        spent on it.
        """
        if self._teacher.transport == "replay":
            return
        while self._n_refused >= (in_a_row if self._n_heard else REFUSALS_AT_THE_START):
            if not self._flying:
                which = "last" if self._n_heard else "first"
                raise TeacherDown(
                    f"{host_of(self._teacher)} refused the {which} {self._n_refused} requests and "
                    f"answered none of them (the last: {self._refusal}). They stay refused; mend "
                    f"the account, or the recipe's model, prompt or settings, which asks anew, and "
                    f"run it again, which also goes on behind them."
                )
            await self._land_some()

    async def _land_some(self) -> None:
        """Waits until a call in flight has ended; raises what it raised."""
        self._line.resting = True
        await asyncio.wait(self._flying.values(), return_when=asyncio.FIRST_COMPLETED)
        self._line.resting = False
        for key in [key for key, task in self._flying.items() if task.done()]:
            self._flying.pop(key).result()

    async def _fly(self, order: Order) -> None:
        """Asks until there is an answer, with an attempt of its own for every try."""
        dice = random.Random(order.key)  # only for waiting times: it never changes a row
        n_failed = 0
        while True:
            if not self._adopt(order):
                await self._reserve(order)
                await self._caps.wait(order.key, order.most)
                self.n_sent += 1
            async with self._gate.out() as sent_at:
                if self._broken:
                    return  # never sent, and the buying is ending
                n_answered = self._pace.n_answered
                self._sent[order.key] = sent_at
                outcome = await self._line.ask(order)
                try:  # no next call goes out before this one is judged
                    outcome = await self._close(order, outcome)
                except BaseException:
                    self._broken = True
                    raise
            if outcome.kind in ("answered", "refused") or self._stopping:
                return
            self._check_down(outcome)
            if outcome.throttled:
                self._pace.throttled(sent_at, outcome.retry_after_s)
            # A throttled call that waits while others are served is not a sign of a dead server.
            served = outcome.throttled and (
                self._pace.n_answered > n_answered or self._others_are_served(sent_at)
            )
            n_failed += not served
            if n_failed >= self._teacher.max_tries:
                raise TeacherDown(
                    f"{host_of(self._teacher)} gave no answer for example {order.request.id} in "
                    f"{n_failed} tries (the last: {outcome.reason}). {GO_ON}"
                )
            if self._line.outlives:
                continue  # it goes into the next batch
            wait_s = backoff(max(1, n_failed), self._terms.backoff_s, LONGEST_BACKOFF_S, dice)
            if served and outcome.retry_after_s is not None:
                wait_s = 0.0  # the server said when, and the pace keeps the calls apart
            await asyncio.sleep((outcome.retry_after_s or 0.0) + wait_s)

    def _others_are_served(self, sent_at: float) -> bool:
        """Whether a call has been out for much longer than this one, which was refused, took."""
        now = asyncio.get_running_loop().time()
        oldest = min(self._sent.values(), default=now)
        return now - oldest > 2 * (now - sent_at) + 0.1

    def _adopt(self, order: Order) -> bool:
        """Takes over an attempt of an earlier process that is still on its way."""
        sent = self._line.adopted.pop(order.key, None)
        if sent is None:
            return False
        self._open[order.key], self._adopted[order.key] = sent.id, sent
        return True

    async def _reserve(self, order: Order) -> None:
        """Opens an attempt; where the hard stop has no room now, waits for open ones to close."""
        while True:
            n_closed = self._n_closed
            try:
                await self._commits.do(lambda: self._open_attempt(order))
                return
            except HardStop:
                waits = self._blocked is not None and order.place > self._blocked
                if n_closed == self._n_closed and not self._open and not waits:
                    raise
            except BridgekdError:  # its group was undone, and the attempt with it
                self._open.pop(order.key, None)
                raise
            if n_closed == self._n_closed:
                self._closed.clear()
                await self._closed.wait()

    def _open_attempt(self, order: Order) -> None:
        """Reserves, in the writing thread; none overtakes an earlier one that waits for room."""
        if self._blocked is not None and order.place > self._blocked:
            raise HardStop("an earlier call waits for room")
        terms = self._terms
        try:
            attempt_id = self._ledger.reserve(
                order.call,
                run=terms.run,
                purpose=terms.purpose,
                reserve_microusd=order.most.cost_microusd,
            )
        except HardStop:
            self._blocked = order.place
            raise
        if self._blocked == order.place:
            self._blocked = None
        self._open[order.key] = attempt_id

    async def _close(self, order: Order, outcome: Outcome) -> Outcome:
        """Writes how an attempt ended: what came back, then what that means."""
        ledger, attempt_id, do = self._ledger, self._open[order.key], self._commits.do
        price, most = self._teacher.tariff, order.most
        if (sent := self._adopted.get(order.key)) is not None:
            price, most = sent.price, replace(most, cost_microusd=sent.reserve_microusd)
        raw, name = outcome.raw, outcome.request_id

        def record() -> None:
            ledger.record(attempt_id, raw, price=price, request_id=name)

        def refuse() -> None:  # in one commit: the body alone does not tell that it was refused
            record()
            ledger.settle(attempt_id, "refused", Bill())

        if outcome.kind == "refused":
            await do(refuse)
            self._shut(order, Bill())
            self._keep(order, Reply("refused"), Bill())
            self._n_refused += 1
            self._refusal = outcome.reason
            return outcome
        if raw:
            await do(record)
        if outcome.kind != "answered":
            await do(
                lambda: ledger.release(
                    attempt_id, "unknown" if outcome.kind == "unknown" else "failed"
                )
            )
            self._shut(order, order.most if outcome.kind == "unknown" else Bill())
            self._check_lost(order, outcome)
        elif (reply := read_reply(outcome.raw)).state == "unparsable":
            await do(lambda: ledger.release(attempt_id, "unparsable"))
            self._shut(order, order.most)
            if failure := failure_in(outcome.raw):  # it broke on the way: worth another try
                broke = Outcome("unknown", reason=failure)
                self._check_lost(order, broke)
                return broke
            raise TeacherDown(
                f"{host_of(self._teacher)} answered with no chat completion but with "
                f"{outcome.raw[:200]!r}; check teacher.base_url. {GO_ON}"
            )
        else:
            await self._settle(order, reply, bill_of(reply, price, most=most))
        return outcome

    async def _settle(self, order: Order, reply: Reply, bill: Bill) -> None:
        attempt_id = self._open[order.key]
        try:
            await self._commits.do(lambda: self._ledger.settle(attempt_id, reply.state, bill))
        finally:
            self._shut(order, bill)
        self._pace.answered()
        self._n_heard, self._n_refused = self._n_heard + 1, 0
        self.spent_microusd += bill.cost_microusd
        self._keep(order, reply, bill)
        self._check_tokens(order, bill)

    def _shut(self, order: Order, bill: Bill) -> None:
        """An attempt is closed; what it did not use of the caps and the hard stop is free again."""
        del self._open[order.key]
        self._sent.pop(order.key, None)
        self._adopted.pop(order.key, None)
        self._caps.give_back(order.key, order.most, bill)
        self._n_closed += 1
        self._closed.set()

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
        billed, most = charge(bill, False).tokens, charge(order.most, False).tokens
        if self.account.limits.tokens is not None and billed > most:
            raise Overbilled(
                f"An answer of {self._teacher.model} was billed as {billed:,} tokens, but by its "
                f"prompt and max_tokens it could be {most:,} at most, so no limit in tokens can be "
                f"kept. It is saved in {self._ledger.path}; limit queries or dollars instead."
            )

    def _check_lost(self, order: Order, outcome: Outcome) -> None:
        """Calls without an answer do not count against the budget, so that what is bought depends
        on rank alone; but they may be billed, and never without end.
        """
        limit = self.account.limits.microusd
        self._lost_microusd += order.most.cost_microusd * (outcome.kind == "unknown")
        if limit is not None and self._lost_microusd > limit:
            raise TeacherDown(
                f"Calls to {host_of(self._teacher)} that gave no answer (the last: "
                f"{outcome.reason}) may have been billed {dollars(self._lost_microusd)}, more "
                f"than the whole budget. {GO_ON}"
            )

    def _check_down(self, outcome: Outcome) -> None:
        reason = outcome.reason if outcome.kind == "down" else ""
        if (outcome.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            reason = f"it wants {outcome.retry_after_s:.0f} s of rest ({outcome.reason})"
        if reason:
            raise TeacherDown(f"{host_of(self._teacher)} cannot be asked: {reason}. {GO_ON}")

    async def _wind_up(self, grace_s: float) -> None:
        """Gives answers in flight, which may be paid, `grace_s` to come; then closes the rest."""
        self._stopping = True
        tasks = self._flying
        for key in tasks.keys() - self._sent.keys():
            tasks[key].cancel()
        unsent = await self._line.stop()
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
        unsent |= self._open.keys() - self._sent.keys()
        left = [self._open.pop(key) for key in unsent & self._open.keys()]
        release = (partial(self._ledger.release, attempt_id, "failed") for attempt_id in left)
        await asyncio.gather(*map(self._commits.do, release))
        # What had arrived is settled; the rest is unknown, or in a batch.
        await self._commits.do(self._ledger.recover)
        if interrupted:
            raise asyncio.CancelledError
