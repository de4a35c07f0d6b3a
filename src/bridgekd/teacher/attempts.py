"""The attempts of one purchase in the ledger: each is reserved before it is sent, and closed once.

The one idea: an attempt is durable before its socket opens, and its response before anything reads
it. A reservation that does not fit under the ledger's hard limit waits until others close, and no
later request passes it.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Literal

from bridgekd.api_client.chat_completion import (
    CompletionBody,
    RequestCost,
    compute_request_cost,
    find_error,
    parse_completion,
    parse_json_object,
)
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import BridgekdError, HardLimitError
from bridgekd.ledger.ledger import Purpose
from bridgekd.recipe import Price
from bridgekd.teacher.group_commit import GroupCommitter
from bridgekd.teacher.transport import PendingRequest


class Attempts:
    """The open attempts, by the key of their request."""

    def __init__(
        self, commits: GroupCommitter, run: str, purpose: Purpose, price: Price | None
    ) -> None:
        self.open: dict[str, int] = {}
        self._commits, self._ledger = commits, commits.ledger
        self._run, self._purpose, self._price = run, purpose, price
        self._n_closed = 0
        self._closed = asyncio.Event()  # a reservation may fit again
        self._blocked: int | None = None  # the first position that did not fit

    async def try_reserve(self, pending: PendingRequest) -> bool:
        """Open an attempt; return False if it does not fit until others have closed.

        Raises HardLimitError if no attempt is open that could free budget.
        """
        n_closed = self._n_closed
        try:
            await self._commits.commit(partial(self._open_attempt, pending))
        except HardLimitError:
            waits = self._blocked is not None and pending.position > self._blocked
            if n_closed == self._n_closed and not self.open and not waits:
                raise
            if n_closed == self._n_closed:
                self._closed.clear()
            return False
        except BridgekdError:  # its group was rolled back, and the attempt with it
            self.open.pop(pending.key, None)
            raise
        return True

    async def wait_for_close(self) -> None:
        """Wait until an attempt has closed since the last `try_reserve`."""
        await self._closed.wait()

    async def close(
        self, pending: PendingRequest, outcome: RequestOutcome, *, is_last: bool = False
    ) -> tuple[RequestOutcome, CompletionBody, RequestCost]:
        """Store the response, then its meaning; return the outcome, the reply and its cost.

        An answer that is not a chat completion becomes another outcome. is_last: without an answer,
        this request is final, as one that the server refused. It costs its reserve if it may have
        been served. Raises OverbilledError if the cost is above the reserve.
        """
        try:
            return await self._close(pending, outcome, is_last)
        finally:
            del self.open[pending.key]
            self._n_closed += 1
            self._closed.set()

    async def release(self, keys: Iterable[str]) -> None:
        """Close attempts that were never sent."""
        unsent = [self.open.pop(key) for key in keys if key in self.open]
        releases = (partial(self._ledger.release, attempt_id, "failed") for attempt_id in unsent)
        await asyncio.gather(*map(self._commits.commit, releases))

    def _open_attempt(self, pending: PendingRequest) -> None:
        """Reserve, in the writing thread."""
        if self._blocked is not None and pending.position > self._blocked:
            raise HardLimitError("An earlier request waits for budget.")
        try:
            self.open[pending.key] = self._ledger.reserve(
                pending.body,
                run=self._run,
                purpose=self._purpose,
                reserve_microusd=pending.max_cost.cost_microusd,
            )
        except HardLimitError:
            self._blocked = pending.position
            raise
        if self._blocked == pending.position:
            self._blocked = None

    async def _close(
        self, pending: PendingRequest, outcome: RequestOutcome, is_last: bool
    ) -> tuple[RequestOutcome, CompletionBody, RequestCost]:
        ledger, attempt_id, commit = self._ledger, self.open[pending.key], self._commits.commit

        def record(raw: str) -> None:
            ledger.record(attempt_id, raw, price=self._price, request_id=outcome.request_id)

        def refuse(raw: str, cost: RequestCost) -> None:
            record(raw)
            ledger.settle(attempt_id, "refused", cost)

        if outcome.kind == "refused":
            # In one transaction, because the body alone does not show it.
            await commit(partial(refuse, outcome.raw, RequestCost()))
            return outcome, CompletionBody("refused"), RequestCost()
        if outcome.raw:
            await commit(partial(record, outcome.raw))
        reply = CompletionBody("unparsable")
        if outcome.kind == "answered":
            reply = parse_completion(outcome.raw)
        if reply.state != "unparsable":
            cost = compute_request_cost(reply, self._price, max_cost=pending.max_cost)
            await commit(partial(ledger.settle, attempt_id, reply.state, cost))
            return outcome, reply, cost
        state, failure = _get_open_state(outcome), _explain_body(outcome)
        cost = RequestCost() if state == "failed" else pending.max_cost
        if is_last and failure.kind != "down" and not failure.is_server_fault:
            raw = outcome.raw or json.dumps({"error": {"message": failure.reason}})
            await commit(partial(refuse, raw, cost))
            return replace(failure, kind="refused"), CompletionBody("refused"), cost
        await commit(partial(ledger.release, attempt_id, state))
        return failure, reply, cost


def _get_open_state(outcome: RequestOutcome) -> Literal["failed", "unknown", "unparsable"]:
    """Return the state of an attempt that has no answer and may be sent again."""
    if outcome.kind == "answered":
        return "unparsable"
    return "unknown" if outcome.kind == "unknown" else "failed"


def _explain_body(outcome: RequestOutcome) -> RequestOutcome:
    """Return why an answer is not a chat completion: an error on the way, or a wrong address."""
    if outcome.kind != "answered":
        return outcome
    if error := find_error(parse_json_object(outcome.raw)):
        return RequestOutcome("unknown", reason=error)
    reason = f"the response is not a chat completion: {outcome.raw[:200]!r}; check teacher.base_url"
    return RequestOutcome("rejected", reason=outcome.reason or reason)
