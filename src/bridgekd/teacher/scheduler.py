"""Carries out one purchase: admits requests in rank order, sends them, and keeps the results.

The one idea: one loop admits requests (`cost/budget.py`) and many tasks send them. Only the loop
decides, so what is purchased never depends on which answer was fastest.
"""

import asyncio
import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from bridgekd.api_client.chat_completion import CompletionBody, RequestCost, parse_completion
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.request_key import TeacherRequest, build_request, compute_request_key
from bridgekd.cost.budget import BudgetTracker, BudgetUse, StopReason
from bridgekd.cost.request_cost import format_microusd
from bridgekd.errors import OverbilledError, TeacherUnavailableError
from bridgekd.grading.grade import join_reasoning
from bridgekd.ledger.sql import StoredAnswer
from bridgekd.records import Completion
from bridgekd.teacher.attempts import Attempts
from bridgekd.teacher.failed_requests import FailedRequests
from bridgekd.teacher.purchase_spec import PurchaseSpec
from bridgekd.teacher.rate_limit import Throttle
from bridgekd.teacher.retry_timer import RetryTimer
from bridgekd.teacher.transport import PendingRequest

MAX_RETRY_AFTER_S = 300.0  # a server that asks for more is down for now
INTERRUPT_GRACE_S = 5.0  # for open requests after Ctrl-C
# Fraction of the requests in flight that are reserved in advance and wait to be sent.
RESERVE_AHEAD = 0.25
MAX_FIRST_REFUSALS = 8  # without an answer: the recipe is wrong, not the questions
MAX_REFUSALS_IN_A_ROW = 25  # after an answer: the account is as likely a cause as the questions
RESUME_HINT = "All answers so far are saved. Fix this and run the same command again to continue."


class RequestScheduler:
    """The state of one purchase: the admitted requests, the open ones and the rows."""

    def __init__(self, spec: PurchaseSpec) -> None:
        context = spec.context
        self.rows: dict[int, Completion] = {}
        self.n_sent = self.n_reused = self.n_at_reserve = self.spent_microusd = 0
        self.budget = BudgetTracker(spec.limits)
        self._spec, self._answers, self._resolved = spec, context.answers, context.resolved
        self._commits, self._ledger = context.commits, context.commits.ledger
        self._teacher, self._transport = context.resolved.teacher, context.resolved.transport
        self._host = context.resolved.host
        self._connection = self._transport.open(context)
        self._attempts = Attempts(self._commits, spec.run, spec.purpose, context.resolved.price)
        max_in_flight = self._connection.max_in_flight
        is_limited = self._transport.supports_rate_limits
        self._max_admitted = max_in_flight * (1 + RESERVE_AHEAD) if is_limited else max_in_flight
        self._throttle = Throttle(max_in_flight, self._teacher if is_limited else None)
        self._in_flight: dict[str, asyncio.Task[None]] = {}  # by key: admitted and not yet final
        self._sent: dict[str, float] = {}  # by key: when the open attempt was sent
        self._in_batches = {key for b in self._ledger.open_batches() for key in b.attempts}
        self._admission_waits = False
        self._room: asyncio.Future[None] | None = None  # ends a wait of the admission
        self._n_waiting = 0  # of those in flight: wait for an answer or for budget in the ledger
        self._stopping = False
        self._has_failed = False  # an answer ended the purchase: no further request is sent
        self._n_refused = 0  # since the last answer
        self._last_refusal = ""
        self._n_answered = 0  # new or reused
        self._answered_at = -math.inf
        self._failed = FailedRequests()
        self._admission_ended = False  # for now: no request fits beside the open ones
        self._retry_timer = RetryTimer(self._host, spec.backoff_s, context.note)
        self._unknown_microusd = 0  # maximum cost of requests that gave no answer

    async def run(self, requests: Iterable[TeacherRequest]) -> StopReason:
        """Purchase until the budget or the pool ends. On an error, wait for open requests."""
        grace_s = self._teacher.timeout_s  # open requests may be billed, so give them time
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
        for position, request in enumerate(requests):
            await asyncio.sleep(0)  # so that Ctrl-C works while a long ledger is read
            pending = self._build_pending(position, request)
            while pending.key in self._in_flight:  # a repeated question: one answer serves both
                await self._wait_any()
            stored = self._ledger.find_answer(pending.key)
            if stored is None and pending.key in self._in_batches:
                stored = await self._wait_for_earlier(pending)
            max_use = self._get_max_use(pending)
            # A reused answer follows the rule of its purchase, and never passes a limit.
            needed = max_use if stored is None else max_use.maximum(_to_use(stored.cost))
            while limit := self.budget.find_blocking_limit(needed):
                if not self._in_flight:
                    await self._stop_if_all_refused()
                    return limit
                self._admission_ended = True
                await self._wait_any()
            self._admission_ended = False
            if stored is not None:
                self._reuse_answer(pending, stored)
                continue
            if self._answers is None:
                self._resolved.check_prompt_length(request.id, pending.max_cost)
            await self._stop_if_all_refused(MAX_REFUSALS_IN_A_ROW)
            self.budget.reserve(max_use)
            while len(self._in_flight) - self._failed.count_beside() >= self._max_admitted:
                await self._wait_any()
            self._in_flight[pending.key] = asyncio.create_task(self._send_until_final(pending))
        self._admission_ended = True
        while self._in_flight:
            await self._wait_any()
        await self._stop_if_all_refused()
        return "pool"

    def _build_pending(self, position: int, request: TeacherRequest) -> PendingRequest:
        body = build_request(self._teacher, request)
        if self._answers is not None:
            max_cost = self._answers.get_cost(request)
        else:
            max_cost = self._resolved.compute_max_cost(request)
        return PendingRequest(position, request, body, compute_request_key(body), max_cost)

    def _get_max_use(self, pending: PendingRequest) -> BudgetUse:
        return _to_use(pending.max_cost, self._spec.accept is not None)

    def _reuse_answer(self, pending: PendingRequest, stored: StoredAnswer) -> None:
        self.n_reused += 1
        if pending.key in self._in_batches:  # it arrived during this purchase
            self._count_refusals(stored.state, stored.raw_response)
        else:
            self._n_answered += stored.state != "refused"
        reply = replace(parse_completion(stored.raw_response), state=stored.state)
        self.budget.reserve(self._get_max_use(pending))
        self._add_row(pending, reply, stored.cost)

    async def _wait_for_earlier(self, pending: PendingRequest) -> StoredAnswer | None:
        """Return the answer to a request in a batch of an earlier process, after its end."""
        earlier = self._connection.find_earlier(pending.key)
        if earlier is None:
            raise TeacherUnavailableError(
                f"Example {pending.request.id} is in a batch that is not finished, and would be "
                f"paid twice. Set teacher.transport: batch and the batch's own base_url, and run "
                f"the same command again."
            )
        while not earlier.done():
            await self._wait_any(earlier)
        earlier.result()
        return self._ledger.find_answer(pending.key)

    async def _stop_if_all_refused(self, max_in_a_row: float = math.inf) -> None:
        """Raise if the server only refuses: this is the recipe or the account, not the questions.

        The budget is not spent on such requests.
        """
        if self._answers is not None:
            return
        while self._n_refused >= (max_in_a_row if self._n_answered else MAX_FIRST_REFUSALS):
            if not self._in_flight:
                which = "last" if self._n_answered else "first"
                raise TeacherUnavailableError(
                    f"{self._host} refused the {which} {self._n_refused} requests and answered "
                    f"none of them (the last: {self._last_refusal}). Refused requests are not "
                    f"retried. Fix the account, or change the model, prompt or settings (this "
                    f"makes new requests). Then run the same command to continue."
                )
            await self._wait_any()

    async def _wait_any(self, *others: "asyncio.Task[None]") -> None:
        """Wait until an open request or another task has ended, or there is room for one more.

        Raises the error of a request.
        """
        self._admission_waits, self._room = True, asyncio.get_running_loop().create_future()
        self._continue_if_idle()
        awaited = [self._room, *self._in_flight.values(), *others]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        self._admission_waits = False
        for key in [key for key, task in self._in_flight.items() if task.done()]:
            self._in_flight.pop(key).result()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count a request that can continue only after another one has ended."""
        self._n_waiting += 1
        asyncio.get_running_loop().call_soon(self._continue_if_idle)
        try:
            yield
        finally:
            self._n_waiting -= 1

    def _continue_if_idle(self) -> None:
        """Send the collected requests if no more can come before some of them have ended."""
        if self._admission_waits and self._n_waiting == len(self._in_flight):
            if self._failed.n_waiting == len(self._in_flight):
                self._failed.decide(is_end=self._admission_ended)
            self._connection.flush()

    async def _send_until_final(self, pending: PendingRequest) -> None:
        """Send until there is an answer; each try is an attempt of its own.

        A request that fails while others are answered is tried once more, and then is final.
        """
        rng = random.Random(pending.key)  # only for waiting times: it never changes a row
        sent_at = first_failed_at = math.inf
        n_attempts, n_failed, is_last = 0, 0, False
        while True:
            while not await self._attempts.try_reserve(pending):
                with self._waiting():
                    await self._attempts.wait_for_close()
            self.n_sent, n_attempts, last_sent_at = self.n_sent + 1, n_attempts + 1, sent_at
            outcome, sent_at = await self._send(pending, is_last)
            if outcome is None or outcome.kind in ("answered", "refused") or self._stopping:
                return
            first_failed_at = min(first_failed_at, asyncio.get_running_loop().time())
            is_served = outcome.rate_limited and self._is_other_served(sent_at, last_sent_at)
            n_failed += not is_served
            is_over = n_failed >= self._teacher.max_attempts and not is_served
            if is_over or outcome.kind == "rejected":
                await self._check_fails_alone(pending, outcome, n_attempts, first_failed_at)
                is_last = True
            elif not self._transport.survives_process:  # else it goes into the next batch
                await self._retry_timer.wait(outcome, n_failed, rng, is_served=is_served)

    async def _check_fails_alone(
        self, pending: PendingRequest, outcome: RequestOutcome, n_attempts: int, failed_at: float
    ) -> None:
        """Wait for the fate of other requests. `failed_at` is the time of the first failure.

        Raises TeacherUnavailableError if the server, and not this request, is the cause.
        """
        if not outcome.is_server_fault and self._failed.allows_another(self._n_answered):
            is_known = self._n_answered > 0  # new or reused: the recipe is right
            n_before = self._ledger.count_attempts(pending.key) - n_attempts
            if self._failed.has_room and self._room is not None and not self._room.done():
                self._room.set_result(None)
                self._admission_waits = False  # until it has looked for another request
            with self._waiting():
                has_before = is_known and n_before > 0
                if await self._failed.wait(outcome, failed_at, has_failed_before=has_before):
                    return
        failure = f"gave no answer for example {pending.request.id} in {n_attempts} attempts"
        failure += f" (the last: {outcome.reason})"
        if outcome.kind == "rejected":
            failure = f"cannot be used: {outcome.reason}"
        raise TeacherUnavailableError(f"{self._host} {failure}. {RESUME_HINT}")

    async def _send(
        self, pending: PendingRequest, is_last: bool
    ) -> tuple[RequestOutcome | None, float]:
        """Return the outcome of one attempt (None: never sent), and when it was sent."""
        async with self._throttle.acquire(pending.max_cost.n_tokens) as sent_at:
            if self._has_failed:
                return None, sent_at
            self._sent[pending.key] = sent_at
            with self._waiting():
                outcome = await self._connection.send(pending)
            try:  # no next request is sent before this outcome is known
                outcome = await self._finish_attempt(pending, outcome, is_last)
            except BaseException:
                self._has_failed = True
                raise
        if outcome.rate_limited:
            self._throttle.record_rate_limit(sent_at)
        return outcome, sent_at

    def _is_other_served(self, sent_at: float, last_sent_at: float) -> bool:
        """Return whether the server answered a request since the last try, or is answering one.

        A rate limit while the server serves other requests is not a sign of a dead server. A
        request counts as being answered if it is open for much longer than the rejection took.
        """
        now = asyncio.get_running_loop().time()
        oldest = min(self._sent.values(), default=now)
        return (
            self._answered_at > min(sent_at, last_sent_at)
            or now - oldest > 2 * (now - sent_at) + 0.1
        )

    async def _finish_attempt(
        self, pending: PendingRequest, outcome: RequestOutcome, is_last: bool
    ) -> RequestOutcome:
        """Close an attempt and keep its row, or raise if the purchase cannot continue."""
        was_refused = outcome.kind == "refused"
        try:
            outcome, reply, cost = await self._attempts.close(pending, outcome, is_last=is_last)
        finally:
            sent_at = self._sent.pop(pending.key)
        self._throttle.refund_tokens(max(0, pending.max_cost.n_tokens - cost.n_tokens))
        if outcome.kind in ("answered", "refused"):
            self._count_refusals(outcome.kind, outcome.reason)
            if outcome.kind == "answered" or was_refused:
                self._answered_at = asyncio.get_running_loop().time()
                self._failed.record_answer(sent_at, self._answered_at)
            else:
                self._failed.n_given_up += 1
                self._spec.context.note(
                    f"{self._host} gave no answer for example {pending.request.id}, but answers "
                    f"others (the last error: {outcome.reason}). Its row stays without an answer."
                )
            self.spent_microusd += cost.cost_microusd
            self._add_row(pending, reply, cost)
            self._check_tokens(pending, cost)
        else:
            self._unknown_microusd += cost.cost_microusd
            self._check_can_continue(outcome)
        return outcome

    def _count_refusals(self, state: str, reason: str) -> None:
        """Count the refusals since the last answer that is new in this purchase."""
        if state == "refused":
            self._n_refused, self._last_refusal = self._n_refused + 1, reason[:300]
        else:
            self._n_refused, self._n_answered = 0, self._n_answered + 1

    def _add_row(self, pending: PendingRequest, reply: CompletionBody, cost: RequestCost) -> None:
        """Add the row of a final request and replace its reserve by its cost."""
        accept, id = self._spec.accept, pending.request.id
        text = join_reasoning(reply.text, reply.reasoning)
        accepted = accept is not None and accept(id, reply.state, text)
        self.n_at_reserve += reply.usage is None and cost.n_tokens > 0
        self.budget.settle(self._get_max_use(pending), _to_use(cost, accepted))
        self.rows[pending.position] = Completion(
            id=id,
            rank=pending.request.rank,
            state=reply.state,
            text=reply.text,
            reasoning=reply.reasoning,
            n_prompt_tokens=cost.n_prompt_tokens,
            n_completion_tokens=cost.n_completion_tokens,
            cost_microusd=cost.cost_microusd,
            key=pending.key,
        )
        self._spec.on_progress(len(self.rows))
        if not self._stopping:
            self._spec.on_answer(id, reply.state, text)

    def _check_tokens(self, pending: PendingRequest, cost: RequestCost) -> None:
        """Check a limit in tokens. The ledger checks dollars."""
        n_billed, n_max = cost.n_tokens, pending.max_cost.n_tokens
        if self.budget.limits.tokens is not None and n_billed > n_max:
            raise OverbilledError(
                f"An answer of {self._teacher.model} was billed as {n_billed:,} tokens, but its "
                f"prompt and max_tokens allow at most {n_max:,}, so no limit in tokens can be "
                f"kept. It is saved in {self._ledger.path}. Limit queries or dollars instead."
            )

    def _check_can_continue(self, outcome: RequestOutcome) -> None:
        """Raise if the teacher is down, or if requests without an answer may cost the full budget.

        Such requests do not count in the budget, so that the purchase depends on rank alone. But
        they may be billed, so their number must be limited.
        """
        limit, hint = self.budget.limits.microusd, RESUME_HINT
        if limit is not None and self._unknown_microusd > limit:
            raise TeacherUnavailableError(
                f"Requests to {self._host} without an answer (the last: {outcome.reason}) may have "
                f"cost {format_microusd(self._unknown_microusd)}, more than the full budget. {hint}"
            )
        reason = outcome.reason if outcome.kind == "down" else ""
        if (outcome.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
            reason = f"it asks to wait {outcome.retry_after_s:.0f} s ({outcome.reason})"
        if reason and not self._stopping:
            raise TeacherUnavailableError(f"{self._host} cannot be used: {reason}. {hint}")

    async def _shut_down(self, grace_s: float) -> None:
        """Wait `grace_s` for open requests, which may be billed; then close the rest."""
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
        # What arrived is settled. The rest becomes unknown, or stays in its batch.
        await self._commits.commit(self._ledger.recover)
        if interrupted:
            raise asyncio.CancelledError


def _to_use(cost: RequestCost, accepted: bool = False) -> BudgetUse:
    """Return the cost of one request in every unit that can be limited."""
    return BudgetUse(1, cost.cost_microusd, cost.n_tokens, int(accepted))
