"""A rate limit like that of hosted teachers: token buckets for requests and for tokens.

A bucket fills continuously up to its size, and a request is accepted when it fits. So the headers
and Retry-After follow from one number: the level of the bucket. A rejected request takes nothing.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MIN_WAIT_S = 0.001


@dataclass(frozen=True, slots=True)
class RateLimitSpec:
    """The limits of a server; None is no limit.

    The request bucket holds the requests of `burst_s` seconds (at least one), the token bucket the
    tokens of a minute. A request counts one token for 4 characters, plus the maximum of its answer.
    `steps` are (seconds after the first request, new requests per second), in order.
    `whole_seconds` rounds Retry-After up, as real servers do.
    """

    requests_per_s: float | None
    tokens_per_minute: int | None = None
    burst_s: float = 1.0
    steps: tuple[tuple[float, float], ...] = ()
    whole_seconds: bool = False

    def __post_init__(self) -> None:
        rates = [self.requests_per_s, self.tokens_per_minute, *(rate for _, rate in self.steps)]
        if any(rate is not None and not rate > 0 for rate in rates):
            raise ValueError(f"A rate must be above 0: {self}.")
        if self.steps and self.requests_per_s is None:
            raise ValueError("steps change requests_per_s, which is None.")
        if sorted(self.steps) != list(self.steps):
            raise ValueError(f"steps must be in the order of their times: {self.steps}.")


@dataclass(slots=True)
class _Bucket:
    """A bucket that holds at most `size` units and gets `rate` units per second."""

    unit: str
    rate: float
    size: float
    level: float

    def fill(self, seconds: float) -> None:
        self.level = min(self.size, self.level + seconds * self.rate)

    def get_wait(self, n: float) -> float:
        """Return the seconds until `n` units fit; infinite if they never fit."""
        if n > self.size:
            return math.inf
        # Filling up to exactly n may end a rounding error below it.
        return 0.0 if self.level >= n - 1e-9 else (n - self.level) / self.rate

    def build_headers(self) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{self.unit}": str(math.floor(self.size)),
            f"x-ratelimit-remaining-{self.unit}": str(max(0, math.floor(self.level + 1e-9))),
            f"x-ratelimit-reset-{self.unit}": format_duration((self.size - self.level) / self.rate),
        }


class ServerRateLimiter:
    """The state of one `RateLimitSpec`, safe for threads. Its clock starts at the first request."""

    def __init__(self, spec: RateLimitSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._steps = list(spec.steps)
        self._lock = threading.Lock()
        self._started: float | None = None
        self._filled_s = 0.0  # seconds from the first request to the last update
        self._buckets: dict[str, _Bucket] = {}
        if (rate := spec.requests_per_s) is not None:
            size = self._get_burst(rate)
            self._buckets["requests"] = _Bucket("requests", rate, size, size)
        if (n_tokens := spec.tokens_per_minute) is not None:
            self._buckets["tokens"] = _Bucket("tokens", n_tokens / 60, n_tokens, n_tokens)

    def acquire(self, n_tokens: int) -> float:
        """Accept a request and return 0, or return the seconds until it would fit.

        The wait is infinite if the request is too large. It assumes the current rate, because a
        server does not announce a change.
        """
        amounts = {"requests": 1, "tokens": n_tokens}
        with self._lock:
            if self._started is None:
                self._started = self._clock()
            self._advance()
            wait = max((b.get_wait(amounts[b.unit]) for b in self._buckets.values()), default=0.0)
            if wait > 0:
                return max(_MIN_WAIT_S, wait)
            for bucket in self._buckets.values():
                bucket.level -= amounts[bucket.unit]
            return 0.0

    def build_retry_header(self, wait: float) -> Mapping[str, str]:
        """Return the header for a wait; empty if the request never fits."""
        if math.isinf(wait):
            return {}
        text = str(math.ceil(wait)) if self._spec.whole_seconds else f"{wait + 0.0005:.3f}"
        return {"Retry-After": text}

    def build_headers(self) -> dict[str, str]:
        """Return the current x-ratelimit headers."""
        with self._lock:
            self._advance()
            headers: dict[str, str] = {}
            for bucket in self._buckets.values():
                headers |= bucket.build_headers()
            return headers

    def _get_burst(self, requests_per_s: float) -> float:
        return max(1.0, requests_per_s * self._spec.burst_s)

    def _advance(self) -> None:
        """Fill the buckets up to the present, with every step in between."""
        if self._started is None:
            return
        now = self._clock() - self._started
        while self._steps and self._steps[0][0] <= now:
            after_s, rate = self._steps.pop(0)
            self._fill_until(after_s)
            # A level above the new size is cut by the next filling.
            self._buckets["requests"].rate = rate
            self._buckets["requests"].size = self._get_burst(rate)
        self._fill_until(now)

    def _fill_until(self, moment_s: float) -> None:
        for bucket in self._buckets.values():
            bucket.fill(moment_s - self._filled_s)
        self._filled_s = moment_s


def format_duration(seconds: float) -> str:
    """Return a time as the headers write it, rounded up to milliseconds.

    >>> format_duration(0.012), format_duration(179.56), format_duration(360)
    ('12ms', '2m59.56s', '6m0s')
    """
    n_ms = math.ceil(round(seconds * 1000, 6))
    if n_ms < 1000:
        return f"{n_ms}ms" if n_ms else "0s"
    minutes, rest = divmod(n_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
