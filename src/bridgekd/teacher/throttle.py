"""Lets requests out to the teacher, one after the other, in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekd.api_client.rate_limit import AdaptiveLimiter, TokenBucket
from bridgekd.recipe import TeacherOptions


class Throttle:
    """At most `max_in_flight` at once, within the user's limits, as fast as the server takes them.

    A request counts for the user's limit on tokens as the most it can have, until it has ended.
    """

    def __init__(self, max_in_flight: int, limits: TeacherOptions | None) -> None:
        self._adaptive = AdaptiveLimiter()
        self._requests = _make_bucket(limits.max_requests_per_minute if limits else None)
        self._tokens = _make_bucket(limits.max_tokens_per_minute if limits else None)
        self._slots = asyncio.Semaphore(max_in_flight)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def acquire(self, n_tokens: int) -> AsyncIterator[float]:
        """Wait until a request may go out; yields when that was. It is in flight inside."""
        async with self._slots:
            yield await self._wait_for_turn(n_tokens)

    def refund_tokens(self, n_tokens: int) -> None:
        """Return what a request did not use of the user's limit on tokens."""
        if self._tokens is not None:
            self._tokens.refund(n_tokens)

    def record_rate_limit(self, sent_at: float) -> None:
        """The server answered a request that went out at `sent_at` with HTTP 429 or the like."""
        self._adaptive.record_rate_limit(sent_at, asyncio.get_running_loop().time())

    async def _wait_for_turn(self, n_tokens: int) -> float:
        clock = asyncio.get_running_loop().time
        amounts = ((self._requests, 1), (self._tokens, n_tokens))
        async with self._turn:
            while wait_s := max(
                self._adaptive.get_wait_s(clock()),
                *(bucket.get_wait_s(clock(), n) if bucket else 0.0 for bucket, n in amounts),
            ):
                await asyncio.sleep(wait_s)
            for bucket, n in amounts:
                if bucket is not None:
                    bucket.take(n)
            now = clock()
            self._adaptive.record_sent(now)
            return now


def _make_bucket(per_minute: float | None) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute)
