"""How fast requests are sent: the rate that a server accepts, the user's limits, and waits.

The one idea: requests are sent at a rate, not as soon as an answer arrives. HTTP 429 lowers the
rate by a tenth. Each sent request raises it again, as TCP's CUBIC does (RFC 9438): quickly back to
the last limit, slowly around it, then faster and faster. So the rate finds a limit that rises, and
follows one that falls within a few requests. Nothing here changes what is purchased. Times are
seconds of any monotonic clock.
"""

import math
import random
import re
from collections import deque

DECREASE = 0.9
SENDS_TO_RECOVER = 40
FIRST_WINDOW_S = 1.0

_PART = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


class AdaptiveLimiter:
    """Decides when the next request may be sent, from the server's HTTP 429 responses.

    Nothing is delayed until the first HTTP 429. The first limit is the number of requests in the
    second before it: too high is better than too low, because a rejected request costs no time.
    """

    def __init__(self) -> None:
        self._limit = math.inf  # requests per second at the last HTTP 429
        self._n_sent = 0
        self._was_delayed = False
        self._next_at = -math.inf
        self._lowered_at = -math.inf
        self._recent: deque[float] = deque()  # until the first HTTP 429

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

    def record_rate_limit(self, sent_at: float, now: float) -> None:
        """Lower the rate after HTTP 429 for a request that was sent at `sent_at`."""
        # A request that was sent before the last decrease does not test the new rate.
        if sent_at < self._lowered_at:
            return
        first_limit = max(1.0, len(self._recent) / FIRST_WINDOW_S)
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


def compute_backoff_s(n_failed: int, base_s: float, max_s: float, rng: random.Random) -> float:
    """Return the seconds to wait after the n-th failure in a row: doubling, minus up to half."""
    return float(min(max_s, base_s * 2 ** (n_failed - 1)) * rng.uniform(0.5, 1.0))


def parse_reset_header(header: str) -> float | None:
    """Return the seconds of a reset header in OpenAI's format; None for anything else.

    >>> parse_reset_header("1h2m3.5s")
    3723.5
    """
    match = _DURATION.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True))
