"""The attempts of one purchase in the ledger: each is reserved before it is sent, and closed once.

The one idea: an attempt is durable before its socket opens, and its response before anything reads
it. Where the limit of the whole ledger has no room for a reservation, it waits for others to close,
and none overtakes an earlier one that waits.
"""

import asyncio
from collections.abc import Iterable
from functools import partial

from bridgekd.api_client.chat_completion import (
    CompletionBody,
    RequestCost,
    compute_request_cost,
    find_error,
    parse_completion,
)
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import BridgekdError, HardLimitError
from bridgekd.ledger.ledger import Purpose
from bridgekd.recipe import Price
from bridgekd.teacher.group_commit import GroupCommitter
from bridgekd.teacher.pending_request import PendingRequest


class Attempts:
    """The open attempts, by the key of their request."""

    def __init__(
        self, commits: GroupCommitter, run: str, purpose: Purpose, price: Price | None
    ) -> None:
        self.open: dict[str, int] = {}
        self._commits, self._ledger = commits, commits.ledger
        self._run, self._purpose, self._price = run, purpose, price
        self._n_closed = 0
        self._closed = asyncio.Event()  # the ledger's limit may have room again
        self._blocked: int | None = None  # the first place that it had no room for

    async def try_reserve(self, order: PendingRequest) -> bool:
        """Open an attempt; False where there is no room until others have closed.

        Raises HardLimitError where nothing is open that could make room.
        """
        n_closed = self._n_closed
        try:
            await self._commits.commit(partial(self._open_attempt, order))
        except HardLimitError:
            waits = self._blocked is not None and order.position > self._blocked
            if n_closed == self._n_closed and not self.open and not waits:
                raise
            if n_closed == self._n_closed:
                self._closed.clear()
            return False
        except BridgekdError:  # its group was undone, and the attempt with it
            self.open.pop(order.key, None)
            raise
        return True

    async def wait_for_room(self) -> None:
        """Wait until an attempt has closed since the last `try_reserve`."""
        await self._closed.wait()

    async def close(
        self, order: PendingRequest, outcome: RequestOutcome
    ) -> tuple[RequestOutcome, CompletionBody, RequestCost]:
        """Write what came back, then what that means; returns it with the reply and its bill.

        A body that is no chat completion turns an answer into one that may have been served. Raises
        OverbilledError where the bill is more than was reserved.
        """
        try:
            return await self._close(order, outcome)
        finally:
            del self.open[order.key]
            self._n_closed += 1
            self._closed.set()

    async def release(self, keys: Iterable[str]) -> None:
        """Close attempts that were never sent."""
        left = [self.open.pop(key) for key in keys if key in self.open]
        releases = (partial(self._ledger.release, attempt_id, "failed") for attempt_id in left)
        await asyncio.gather(*map(self._commits.commit, releases))

    def _open_attempt(self, order: PendingRequest) -> None:
        """Reserve, in the writing thread."""
        if self._blocked is not None and order.position > self._blocked:
            raise HardLimitError("an earlier request waits for room")
        try:
            self.open[order.key] = self._ledger.reserve(
                order.body,
                run=self._run,
                purpose=self._purpose,
                reserve_microusd=order.max_cost.cost_microusd,
            )
        except HardLimitError:
            self._blocked = order.position
            raise
        if self._blocked == order.position:
            self._blocked = None

    async def _close(
        self, order: PendingRequest, outcome: RequestOutcome
    ) -> tuple[RequestOutcome, CompletionBody, RequestCost]:
        ledger, attempt_id, commit = self._ledger, self.open[order.key], self._commits.commit

        def record() -> None:
            raw, name = outcome.raw, outcome.request_id
            ledger.record(attempt_id, raw, price=self._price, request_id=name)

        def refuse() -> None:
            record()
            ledger.settle(attempt_id, "refused", RequestCost())

        if outcome.kind == "refused":
            await commit(refuse)  # in one commit, because the body alone does not tell it
            return outcome, CompletionBody("refused"), RequestCost()
        if outcome.raw:
            await commit(record)
        if outcome.kind != "answered":
            is_lost = outcome.kind == "unknown"
            await commit(partial(ledger.release, attempt_id, "unknown" if is_lost else "failed"))
            return (
                outcome,
                CompletionBody("unparsable"),
                order.max_cost if is_lost else RequestCost(),
            )
        reply = parse_completion(outcome.raw)
        if reply.state == "unparsable":
            await commit(partial(ledger.release, attempt_id, "unparsable"))
            return _explain_body(outcome.raw), reply, order.max_cost
        bill = compute_request_cost(reply, self._price, max_cost=order.max_cost)
        await commit(partial(ledger.settle, attempt_id, reply.state, bill))
        return outcome, reply, bill


def _explain_body(raw: str) -> RequestOutcome:
    """Why a body is no chat completion: it broke on the way, or the address is wrong."""
    if failure := find_error(raw):
        return RequestOutcome("unknown", reason=failure)
    reason = f"it answered with no chat completion but with {raw[:200]!r}; check teacher.base_url"
    return RequestOutcome("down", reason=reason)
