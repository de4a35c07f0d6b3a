"""How long work reports how far it is: a callable, so that no layer below needs a terminal.

The one idea of `ProgressTimer`: what was done a while ago says little about what is still to come.
Saved answers arrive in a burst, and long prompts come first. So the rate is that of the recent half
of the time, and work that an earlier process did never counts.
"""

from collections import deque
from typing import Protocol

MIN_WINDOW_S = 30.0
_N_SAMPLES = 200  # per window, so that the memory does not grow with the work


class Progress(Protocol):
    """What long work calls as it advances. Called often; it must return quickly."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take the name of the work, and how many of how many parts are done.

        The first call comes before the work, with what an earlier process did; the last one has
        `done` equal to `total`, also where the work ends early.
        """


class ProgressTimer:
    """Elapsed and remaining seconds of one piece of work. Times are seconds of any clock.

    >>> timer = ProgressTimer(now=0.0, done=500, total=1000)
    >>> timer.update(now=10.0, done=600, total=1000)
    >>> timer.estimate_remaining(now=10.0)
    40.0
    """

    def __init__(self, now: float, done: int, total: int) -> None:
        self.started_at = now
        self.done, self.total = done, total
        self._samples = deque([(now, done)])
        self._updated_at = now

    def update(self, now: float, done: int, total: int) -> None:
        """Take how far the work is now."""
        self.done, self.total, self._updated_at = done, total, now
        window = max(MIN_WINDOW_S, (now - self.started_at) / 2)
        if now - self._samples[-1][0] >= window / _N_SAMPLES:
            self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - window:
            self._samples.popleft()

    def estimate_remaining(self, now: float) -> float | None:
        """Seconds to the end; None before the rate is known.

        Between two updates the time runs down, but not below what the parts after the present one
        need.
        """
        start, n_before = self._samples[0]
        seconds, n_done = self._updated_at - start, self.done - n_before
        if seconds <= 0 or n_done <= 0:
            return None
        n_left, per_part = self.total - self.done, seconds / n_done
        left = n_left * per_part - (now - self._updated_at)
        return max(left, (n_left - 1) * per_part, 0.0)


def ignore_progress(what: str, done: int, total: int) -> None:
    """The progress of somebody who does not look."""
