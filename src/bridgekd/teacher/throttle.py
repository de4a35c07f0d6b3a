"""Lets requests go to the teacher one after the other, in order of arrival."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekd.api_client.rate_limit import AdaptiveLimiter, TokenBucket
from bridgekd.recipe import TeacherOptions


class Throttle:
    """Keeps at most `max_in_flight` requests open, within the user's and the server's rate limits.

    A request counts in the user's token limit at its maximum until it has ended.
    """

    def __init__(self, max_in_flight: int, limits: TeacherOptions | None) -> None:
        self._adaptive = AdaptiveLimiter()
        self._requests = _make_bucket(limits.max_requests_per_minute if limits else None)
        self._tokens = _make_bucket(limits.max_tokens_per_minute if limits else None)
        self._slots = asyncio.Semaphore(max_in_flight)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def acquire(self, n_tokens: int) -> AsyncIterator[float]:
        """Wait until a request may be sent; yield that time. The request is open inside."""
        async with self._slots:
            yield await self._wait_for_turn(n_tokens)

    def refund_tokens(self, n_tokens: int) -> None:
        """Return the part of the user's token limit that a request did not use."""
        if self._tokens is not None:
            self._tokens.refund(n_tokens)

    def record_rate_limit(self, sent_at: float) -> None:
        """Lower the rate: the server rate-limited a request that was sent at `sent_at`."""
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
