"""Carries out one buying: admits calls in rank order, sends them, and writes what came of them.

The one idea: one loop admits (`core/admission.py`) and many tasks carry out; only the loop
decides, so what is bought never depends on which answer was fastest. Each attempt is in the
ledger before its socket opens, and its response before anything reads it.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridgekd.config import Teacher
from bridgekd.core.admission import Account, Charge, Ended, Limits
from bridgekd.core.calls import TeacherRequest, call_key, call_request
from bridgekd.core.costs import prompt_token_bound, reserve_microusd
from bridgekd.core.pace import Pace, backoff
from bridgekd.core.replies import Bill, Reply, bill_of, read_reply
from bridgekd.edges.chat import Line, Outcome, host_of
from bridgekd.edges.ledger import Ledger, Purpose, StoredCall
from bridgekd.errors import HardStop, Overbilled, TeacherDown
from bridgekd.records import Completion

LONGEST_BACKOFF_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0  # who asks for more is down for now
GRACE_S = 30.0  # for answers in flight when the buying stops by itself
INTERRUPT_GRACE_S = 5.0  # for the same when a person stops it
REFUSALS_AT_THE_START = 8  # so many and no answer: it is the recipe, not the questions
GO_ON = "All answers so far are saved; mend this and run the same command again to go on."


@dataclass(frozen=True, slots=True)
class _Order:
    """One admitted request: its place among the requests, its key and the most it can cost."""

    place: int
    request: TeacherRequest
    call: Mapping[str, Any]
    key: str
    most: Bill


class Buying:
    """The state of one `buy`: what is admitted, what is in flight, what is bought."""

    def __init__(
        self,
        ledger: Ledger,
        teacher: Teacher,
        limits: Limits,
        *,
        run: str,
        purpose: Purpose,
        backoff_s: float,
        tell: Callable[[int], None],
    ) -> None:
        self.rows: dict[int, Completion] = {}
        self.n_sent = 0
        self.n_recalled = 0
        self.spent_microusd = 0
        self.account = Account(limits)
        self._ledger = ledger
        self._teacher = teacher
        self._labels: tuple[str, Purpose] = (run, purpose)
        self._backoff_s = backoff_s
        self._tell = tell
        self._pace = Pace(teacher.concurrency)
        self._gate = _Gate(self._pace)
        self._flying: dict[str, asyncio.Task[None]] = {}  # by key: admitted and not yet settled
        self._open: dict[str, int] = {}  # by key: the attempt that is in the ledger as reserved
        self._closed = asyncio.Event()  # an attempt was closed, so the hard stop has room again
        self._stopping = False
        self._n_refused = 0

    async def go(self, requests: Iterable[TeacherRequest], line: Line) -> Ended:
        """Buys until the budget or the pool ends; on any other end, waits for what is in flight."""
        grace_s = min(self._teacher.timeout_s, GRACE_S)
        async with line:
            try:
                return await self._admit(requests, line)
            except asyncio.CancelledError:
                grace_s = min(self._teacher.timeout_s, INTERRUPT_GRACE_S)
                raise
            finally:
                await self._wind_up(grace_s)

    async def _admit(self, requests: Iterable[TeacherRequest], line: Line) -> Ended:
        for place, request in enumerate(requests):
            await asyncio.sleep(0)  # recalling a long ledger must not deafen us to Ctrl-C
            call = call_request(self._teacher, request)
            order = _Order(place, request, call, call_key(call), _most(self._teacher, request))
            while order.key in self._flying:  # the same question twice: one answer serves both
                await self._land_some()
            stored = self._ledger.recall(order.key)
            most = _charge(order.most)
            if stored is not None:  # the same rule as when it was bought, and never past a limit
                most = most.most(_charge(_bill(stored)))
            while lacking := self.account.lacking(most):
                if not self._flying:
                    return lacking
                await self._land_some()
            if stored is not None:
                self._recall(order, stored)
                continue
            self.account.hold(most)
            while len(self._flying) >= self._teacher.concurrency:
                await self._land_some()
            sent_at = await self._enter()
            await self._reserve(order)
            self._flying[order.key] = asyncio.create_task(self._fly(order, line, sent_at))
        while self._flying:
            await self._land_some()
        return "pool"

    async def _enter(self) -> float:
        """Waits for the gate; raises at once what a call in flight raises meanwhile."""
        entering = asyncio.ensure_future(self._gate.enter())
        try:
            while not entering.done():
                waited = {entering, *self._flying.values()}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for key in [key for key, task in self._flying.items() if task.done()]:
                    self._flying.pop(key).result()
            return entering.result()
        except BaseException:
            entering.cancel()
            raise

    def _recall(self, order: _Order, stored: StoredCall) -> None:
        self.n_recalled += 1
        reply = replace(read_reply(stored.raw_response), state=stored.state)
        self.account.hold(_charge(order.most))
        self._keep(order, reply, _bill(stored), held=order.most)

    async def _land_some(self) -> None:
        """Waits until a call in flight has ended; raises what it raised."""
        await asyncio.wait(self._flying.values(), return_when=asyncio.FIRST_COMPLETED)
        for key in [key for key, task in self._flying.items() if task.done()]:
            self._flying.pop(key).result()

    async def _reserve(self, order: _Order) -> None:
        """Opens an attempt; where the hard stop has no room now, waits for open ones to close."""
        run, purpose = self._labels
        while True:
            try:
                self._open[order.key] = self._ledger.reserve(
                    order.call, run=run, purpose=purpose, reserve_microusd=order.most.cost_microusd
                )
                return
            except HardStop:
                if not self._open:
                    raise
            self._closed.clear()
            await self._closed.wait()

    async def _fly(self, order: _Order, line: Line, sent_at: float) -> None:
        """Asks until there is an answer, with an attempt of its own for every try."""
        dice = random.Random(order.key)  # only for waiting times: it never changes a row
        n_failed = 0
        while True:
            if self._stopping:
                self._gate.leave()
                self._ledger.release(self._open.pop(order.key), "failed")  # it was never sent
                return
            n_answered = self._pace.n_answered
            self.n_sent += 1
            try:
                outcome = await line.ask(order.call)
            finally:
                self._gate.leave()
            self._close(order, outcome)
            if outcome.kind in ("answered", "refused") or self._stopping:
                return
            self._check_down(outcome)
            if outcome.throttled:
                self._pace.throttled(sent_at, outcome.retry_after_s)
            # A throttled call that waits while others are answered is not a sign of a dead server.
            served = outcome.throttled and self._pace.n_answered > n_answered
            n_failed += not served
            if n_failed >= self._teacher.max_tries:
                raise TeacherDown(
                    f"{host_of(self._teacher)} gave no answer for example {order.request.id} in "
                    f"{n_failed} tries (the last: {outcome.reason}). {GO_ON}"
                )
            wait_s = backoff(max(1, n_failed), self._backoff_s, LONGEST_BACKOFF_S, dice)
            if served and outcome.retry_after_s is not None:
                wait_s = 0.0  # the server said when, and the pace keeps the calls apart
            await asyncio.sleep((outcome.retry_after_s or 0.0) + wait_s)
            sent_at = await self._gate.enter()
            await self._reserve(order)

    def _close(self, order: _Order, outcome: Outcome) -> None:
        """Writes how an attempt ended: first what came back, then what it means."""
        attempt_id = self._open.pop(order.key)
        self._closed.set()
        ledger, price = self._ledger, self._teacher.price
        if outcome.raw:
            ledger.record(attempt_id, outcome.raw, price=price, request_id=outcome.request_id)
        if outcome.kind == "refused":
            ledger.settle(attempt_id, "refused", Bill())
            self._keep(order, Reply("refused"), Bill(), held=order.most)
            self._check_refusals(outcome)
        elif outcome.kind != "answered":
            ledger.release(attempt_id, "unknown" if outcome.kind == "unknown" else "failed")
        elif (reply := read_reply(outcome.raw)).state == "unparsable":
            ledger.release(attempt_id, "unparsable")
            raise TeacherDown(
                f"{host_of(self._teacher)} answered with no chat completion but with "
                f"{outcome.raw[:200]!r}; check teacher.base_url. {GO_ON}"
            )
        else:
            bill = bill_of(reply, price, most=order.most)
            self._pace.answered()
            self.spent_microusd += bill.cost_microusd
            ledger.settle(attempt_id, reply.state, bill)
            self._keep(order, reply, bill, held=order.most)
            self._check_tokens(order, bill)

    def _keep(self, order: _Order, reply: Reply, bill: Bill, *, held: Bill) -> None:
        """Makes the row of a final call and turns what was held for it into what it cost."""
        self.account.settle(_charge(held), _charge(bill))
        self.rows[order.place] = Completion(
            id=order.request.id,
            rank=order.request.rank,
            state=reply.state,
            text=reply.text,
            reasoning=reply.reasoning,
            n_prompt_tokens=bill.n_prompt_tokens,
            n_completion_tokens=bill.n_completion_tokens,
            cost_microusd=bill.cost_microusd,
            key=order.key,
        )
        self._tell(len(self.rows))

    def _check_tokens(self, order: _Order, bill: Bill) -> None:
        """Dollars are checked by the ledger; tokens only matter where the run limits them."""
        billed, most = _charge(bill).tokens, _charge(order.most).tokens
        if self.account.limits.tokens is not None and billed > most:
            raise Overbilled(
                f"An answer of {self._teacher.model} was billed as {billed:,} tokens, but by its "
                f"prompt and max_tokens it could be {most:,} at most, so no limit in tokens can be "
                f"kept. It is saved in {self._ledger.path}; limit queries or dollars instead."
            )

    def _check_refusals(self, outcome: Outcome) -> None:
        """Refusals and nothing else: the recipe is at fault, and the budget is not spent on it."""
        self._n_refused += 1
        if self._n_refused >= REFUSALS_AT_THE_START and not self._pace.n_answered:
            raise TeacherDown(
                f"{host_of(self._teacher)} refused the first {self._n_refused} requests and "
                f"answered none (the last: {outcome.reason}). {GO_ON}"
            )

    def _check_down(self, outcome: Outcome) -> None:
        reason = outcome.reason if outcome.kind == "down" else ""
        if (outcome.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            reason = f"it wants {outcome.retry_after_s:.0f} s of rest ({outcome.reason})"
        if reason:
            raise TeacherDown(f"{host_of(self._teacher)} cannot be asked: {reason}. {GO_ON}")

    async def _wind_up(self, grace_s: float) -> None:
        """Gives answers in flight, which may be paid, `grace_s` to come; the rest are unknown."""
        self._stopping = True
        for key, task in self._flying.items():
            if key not in self._open:  # between two tries: nothing to wait for
                task.cancel()
        if self._flying:
            await asyncio.wait(self._flying.values(), timeout=grace_s)
            for task in self._flying.values():
                task.cancel()
            await asyncio.gather(*self._flying.values(), return_exceptions=True)
        while self._open:
            self._ledger.release(self._open.popitem()[1], "unknown")


class _Gate:
    """Lets calls out one after the other, in the order they came, as the pace allows."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()
        self._n_out = 0

    async def enter(self) -> float:
        """Waits until one more call may go out, and returns when that was."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while True:
                if self._n_out >= self._pace.width:
                    self._left.clear()
                    await self._left.wait()
                elif wait_s := self._pace.wait_s(clock()):
                    await asyncio.sleep(wait_s)
                else:
                    break
            self._n_out += 1
            self._pace.sent(now := clock())
            return now

    def leave(self) -> None:
        """A call is no longer in flight, however it ended."""
        self._n_out -= 1
        self._left.set()


def _most(teacher: Teacher, request: TeacherRequest) -> Bill:
    """The most one request can be billed."""
    return Bill(
        prompt_token_bound(request.messages),
        teacher.max_tokens,
        reserve_microusd(teacher.price, request.messages, teacher.max_tokens),
    )


def _charge(bill: Bill) -> Charge:
    return Charge(1, bill.cost_microusd, bill.n_prompt_tokens + bill.n_completion_tokens)


def _bill(stored: StoredCall) -> Bill:
    return Bill(stored.n_prompt_tokens, stored.n_completion_tokens, stored.cost_microusd)
