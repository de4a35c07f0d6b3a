"""A rate limit as hosted teachers have one: token buckets for requests and for tokens.

The one idea: a bucket fills continuously up to its size and a request is taken when it fits, so
the headers and Retry-After follow from one number, what is in the bucket. A request that is
refused takes nothing.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MIN_WAIT_S = 0.001


@dataclass(frozen=True, slots=True)
class RateLimitSpec:
    """What a server allows; None is no limit.

    The bucket of requests holds `burst_s` seconds of them (at least one), that of tokens a minute.
    A request counts what its characters suggest, four a token, and all that it may answer.
    `steps` are (seconds after the first request, requests per second from then on), in order.
    `whole_seconds` rounds Retry-After up as real servers do.
    """

    requests_per_s: float | None
    tokens_per_minute: int | None = None
    burst_s: float = 1.0
    steps: tuple[tuple[float, float], ...] = ()
    whole_seconds: bool = False

    def __post_init__(self) -> None:
        speeds = [self.requests_per_s, self.tokens_per_minute, *(speed for _, speed in self.steps)]
        if any(speed is not None and not speed > 0 for speed in speeds):
            raise ValueError(f"a rate must be above 0: {self}")
        if self.steps and self.requests_per_s is None:
            raise ValueError("steps change requests_per_s, which is None")
        if sorted(self.steps) != list(self.steps):
            raise ValueError(f"steps must be in the order of their times: {self.steps}")


class _Bucket:
    """How full one bucket is; `size` units at most, `speed` of them a second."""

    def __init__(self, speed: float, size: float) -> None:
        self.speed, self.size, self.level = speed, size, size

    def set_rate(self, speed: float, size: float) -> None:
        """What is over the new size spills with the next filling."""
        self.speed, self.size = speed, size

    def fill(self, seconds: float) -> None:
        self.level = min(self.size, self.level + seconds * self.speed)

    def wait(self, n: float) -> float:
        """Seconds until `n` fit; infinite if they never will."""
        if n > self.size:
            return math.inf
        # Filling up to exactly n may end a rounding error below it.
        return 0.0 if self.level >= n - 1e-9 else (n - self.level) / self.speed

    def headers(self, unit: str) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{unit}": str(math.floor(self.size)),
            f"x-ratelimit-remaining-{unit}": str(max(0, math.floor(self.level + 1e-9))),
            f"x-ratelimit-reset-{unit}": format_duration((self.size - self.level) / self.speed),
        }


class ServerRateLimiter:
    """The state of one `Rate`, safe between threads. Its clock starts with the first request."""

    def __init__(self, rate: RateLimitSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._steps = list(rate.steps)
        self._lock = threading.Lock()
        self._began: float | None = None
        self._seen = 0.0  # seconds since the first request, at the last look
        self._requests = self._tokens = None
        if rate.requests_per_s is not None:
            self._requests = _Bucket(rate.requests_per_s, self._burst(rate.requests_per_s))
        if rate.tokens_per_minute is not None:
            self._tokens = _Bucket(rate.tokens_per_minute / 60, rate.tokens_per_minute)

    def acquire(self, n_tokens: int) -> float:
        """0 and the request is taken, or the seconds until it would fit; infinite: it is too large.

        The wait is what today's speed gives; a server does not announce a change.
        """
        with self._lock:
            if self._began is None:
                self._began = self._clock()
            self._advance()
            asked = [(bucket, n) for bucket, n in self._asked(n_tokens) if bucket]
            wait = max((bucket.wait(n) for bucket, n in asked), default=0.0)
            if wait > 0:
                return max(_MIN_WAIT_S, wait)
            for bucket, n in asked:
                bucket.level -= n
            return 0.0

    def retry_after(self, wait: float) -> Mapping[str, str]:
        """The header for a wait; none for what will never fit."""
        if math.isinf(wait):
            return {}
        text = str(math.ceil(wait)) if self._rate.whole_seconds else f"{wait + 0.0005:.3f}"
        return {"Retry-After": text}

    def build_headers(self) -> dict[str, str]:
        """The x-ratelimit headers as of now."""
        with self._lock:
            self._advance()
            found: dict[str, str] = {}
            if self._requests:
                found |= self._requests.headers("requests")
            if self._tokens:
                found |= self._tokens.headers("tokens")
            return found

    def _asked(self, n_tokens: int) -> tuple[tuple[_Bucket | None, int], ...]:
        return (self._requests, 1), (self._tokens, n_tokens)

    def _burst(self, requests_per_s: float) -> float:
        return max(1.0, requests_per_s * self._rate.burst_s)

    def _advance(self) -> None:
        """Fills both buckets up to now, through every step on the way."""
        if self._began is None:
            return
        now = self._clock() - self._began
        while self._steps and self._steps[0][0] <= now:
            after_s, speed = self._steps.pop(0)
            self._fill_until(after_s)
            if self._requests:
                self._requests.set_rate(speed, self._burst(speed))
        self._fill_until(now)

    def _fill_until(self, moment: float) -> None:
        for bucket in (self._requests, self._tokens):
            if bucket:
                bucket.fill(moment - self._seen)
        self._seen = moment


def format_duration(seconds: float) -> str:
    """A time as the headers write it, rounded up to milliseconds: 12ms, 1s, 2m59.56s, 6m0s."""
    n_ms = math.ceil(round(seconds * 1000, 6))
    if n_ms < 1000:
        return f"{n_ms}ms" if n_ms else "0s"
    minutes, rest = divmod(n_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
