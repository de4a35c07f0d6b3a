"""How fast requests go out: the rate that a server takes, the user's own limits, and waiting times.

The one idea: requests go out at a rate, not as soon as an answer makes room. HTTP 429 lowers the
rate by a tenth; with every request sent it grows again, as TCP's CUBIC does (RFC 9438): quickly
back to where it was, slowly around that point, then faster and faster. So a limit that rises is
found, and one that falls is followed within a few requests. Nothing here changes what is bought,
only when. Times are seconds of any steady clock.
"""

import math
import random
import re
from collections import deque

DECREASE = 0.9
SENDS_TO_RECOVER = 40
FIRST_GUESS_S = 1.0

_PART = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


class AdaptiveLimiter:
    """When the next request may go out, by what the server let in so far.

    Nothing is delayed until the first HTTP 429. The first guess is what went out in the second
    before it: too much rather than too little, because a request that is refused costs no time.
    """

    def __init__(self) -> None:
        self._limit = math.inf  # requests per second when the server last refused one
        self._n_sent = 0
        self._was_delayed = False
        self._next_at = -math.inf
        self._lowered_at = -math.inf
        self._recent: deque[float] = deque()  # until the first HTTP 429

    @property
    def rate(self) -> float:
        """Requests per second, now."""
        progress = self._n_sent / SENDS_TO_RECOVER - 1
        return self._limit * (1 + (1 - DECREASE) * progress**3)

    def get_wait_s(self, now: float) -> float:
        """Return the seconds until the next request may go out."""
        wait_s = max(0.0, self._next_at - now)
        self._was_delayed |= wait_s > 0
        return wait_s

    def record_sent(self, now: float) -> None:
        """One more request has gone out, a further attempt included."""
        if self._limit == math.inf:
            self._recent.append(now)
            while self._recent[0] < now - FIRST_GUESS_S:
                self._recent.popleft()
            return
        # Only requests that the rate held back have tested it.
        self._n_sent += self._was_delayed
        self._was_delayed = False
        gap_s = 1 / self.rate
        # Half a gap of credit makes up for timers that fire late.
        self._next_at = max(self._next_at, now - gap_s / 2) + gap_s

    def record_rate_limit(self, sent_at: float, now: float) -> None:
        """The server refused, for now, a request that went out at `sent_at`."""
        # Requests that were in flight at the last decrease say nothing about the new rate.
        if sent_at < self._lowered_at:
            return
        first_guess = max(1.0, len(self._recent) / FIRST_GUESS_S)
        self._limit = first_guess if self._limit == math.inf else self.rate
        self._lowered_at, self._n_sent = now, 0


class TokenBucket:
    """A limit per minute that the user sets; one second of it may go out at once.

    In any minute, at most `per_minute` is taken, what was given back subtracted; more only by what
    was taken before that minute and given back within it, and by the last amount, where a single
    one is more than a second's.
    """

    def __init__(self, per_minute: float) -> None:
        if not per_minute > 0:
            raise ValueError(f"A limit per minute must be above 0, found {per_minute}.")
        # A second's burst and 60 seconds of inflow are the minute's limit.
        self._per_s = self._burst = self._level = per_minute / 61
        self._filled_at = -math.inf

    def get_wait_s(self, now: float, amount: float) -> float:
        """Return the seconds until `amount` may be taken; more than the burst needs it full."""
        if now > self._filled_at:
            self.refund((now - self._filled_at) * self._per_s)
            self._filled_at = now
        return max(0.0, (min(amount, self._burst) - self._level) / self._per_s)

    def take(self, amount: float) -> None:
        """Take an amount that `get_wait_s` let go."""
        self._level -= amount

    def refund(self, amount: float) -> None:
        """Give back what was taken and not used."""
        self._level = min(self._burst, self._level + amount)


def compute_backoff_s(n_failed: int, base_s: float, longest_s: float, dice: random.Random) -> float:
    """Seconds to wait after the n-th failure in a row: doubling, and up to half of it jitter."""
    return float(min(longest_s, base_s * 2 ** (n_failed - 1)) * dice.uniform(0.5, 1.0))


def parse_reset_header(header: str) -> float | None:
    """Seconds of a reset header as OpenAI writes it: 12ms, 1s, 6m0s, 1h2m3.5s; else None."""
    found = _DURATION.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True))
