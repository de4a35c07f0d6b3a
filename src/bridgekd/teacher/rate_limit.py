"""How fast requests are sent: the rate that a server accepts, and the user's limits.

The one idea: requests are sent at a rate, not as soon as an answer arrives. HTTP 429 lowers the
rate by a tenth. Each sent request raises it again, as TCP's CUBIC does (RFC 9438): quickly back to
the last limit, slowly around it, then faster and faster. So the rate finds a limit that rises, and
follows one that falls within a few requests. Nothing here changes what is purchased. Times are
seconds of any monotonic clock.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekd.recipe import TeacherOptions

DECREASE = 0.9
SENDS_TO_RECOVER = 40
FIRST_WINDOW_S = 1.0
MIN_ELAPSED_S = 0.01


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
            self._adaptive.record_end()

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


class AdaptiveLimiter:
    """Decides when the next request may be sent, from the server's HTTP 429 responses.

    Nothing is delayed until the first HTTP 429. The first limit is the number of requests in the
    second before it, or the rate of those that have ended by then, if that is higher: one early
    HTTP 429 by chance must not slow a purchase down. Too high is better than too low, because a
    rejected request costs no time.
    """

    def __init__(self) -> None:
        self._limit = math.inf  # requests per second at the last HTTP 429
        self._n_sent = 0
        self._was_delayed = False
        self._next_at = -math.inf
        self._lowered_at = -math.inf
        self._recent: deque[float] = deque()  # until the first HTTP 429, as the next two
        self._started_at = math.inf
        self._n_ended = 0

    @property
    def rate(self) -> float:
        """Return the current rate in requests per second."""
        progress = self._n_sent / SENDS_TO_RECOVER - 1
        return self._limit * (1 + (1 - DECREASE) * progress**3)

    def get_wait_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent."""
        wait_s = max(0.0, self._next_at - now)
        self._was_delayed |= wait_s > 0
        return wait_s

    def record_sent(self, now: float) -> None:
        """Count a request that was sent; a retry is a request too."""
        if self._limit == math.inf:
            self._started_at = min(self._started_at, now)
            self._recent.append(now)
            while self._recent[0] < now - FIRST_WINDOW_S:
                self._recent.popleft()
            return
        # Only a request that was delayed shows that the server accepts this rate.
        self._n_sent += self._was_delayed
        self._was_delayed = False
        gap_s = 1 / self.rate
        # Half a gap of credit compensates timers that fire late.
        self._next_at = max(self._next_at, now - gap_s / 2) + gap_s

    def record_end(self) -> None:
        """Count a request that has ended without HTTP 429, or after the first limit was set."""
        self._n_ended += 1

    def record_rate_limit(self, sent_at: float, now: float) -> None:
        """Lower the rate after HTTP 429 for a request that was sent at `sent_at`."""
        # A request that was sent before the last decrease does not test the new rate.
        if sent_at < self._lowered_at:
            return
        ended_per_s = self._n_ended / max(now - self._started_at, MIN_ELAPSED_S)
        first_limit = max(1.0, len(self._recent) / FIRST_WINDOW_S, ended_per_s)
        self._limit = first_limit if self._limit == math.inf else self.rate
        self._lowered_at, self._n_sent = now, 0


class TokenBucket:
    """A limit per minute that the user sets, with a burst of one second of it.

    In any minute at most `per_minute` is taken, net of refunds. Two things can exceed this: amounts
    that were taken before the minute and refunded within it, and the last amount, if it is larger
    than the burst.
    """

    def __init__(self, per_minute: float) -> None:
        if not per_minute > 0:
            raise ValueError(f"A limit per minute must be above 0, got {per_minute}.")
        # A second's burst and 60 seconds of inflow are the minute's limit.
        self._per_s = self._burst = self._level = per_minute / 61
        self._filled_at = -math.inf

    def get_wait_s(self, now: float, amount: float) -> float:
        """Return the seconds until `amount` may be taken; a full bucket admits any amount."""
        if now > self._filled_at:
            self.refund((now - self._filled_at) * self._per_s)
            self._filled_at = now
        return max(0.0, (min(amount, self._burst) - self._level) / self._per_s)

    def take(self, amount: float) -> None:
        """Take an amount after `get_wait_s` returned 0."""
        self._level -= amount

    def refund(self, amount: float) -> None:
        """Return an amount that was taken and not used."""
        self._level = min(self._burst, self._level + amount)


def _make_bucket(per_minute: float | None) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute)
