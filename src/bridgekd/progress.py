"""Progress of long work: a callable, so that the lower layers need no terminal.

`ProgressTimer` estimates the remaining time from the recent half of the elapsed time, because the
start is not typical: saved answers arrive in a burst, and long prompts come first. Work of an
earlier process does not count.
"""

from collections import deque
from typing import Protocol

MIN_WINDOW_S = 30.0
_N_SAMPLES = 200  # per window, which limits the memory of long work


class Progress(Protocol):
    """What long work calls as it advances. It is called often and must return quickly."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take the name of the work, the number of finished parts, and the number of all parts.

        The first call comes before the work starts; its `done` is the work of an earlier process.
        In the last call `done` equals `total`, also if the work ends early.
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
        """Record the progress at the time `now`."""
        self.done, self.total, self._updated_at = done, total, now
        window = max(MIN_WINDOW_S, (now - self.started_at) / 2)
        if now - self._samples[-1][0] >= window / _N_SAMPLES:
            self._samples.append((now, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - window:
            self._samples.popleft()

    def estimate_remaining(self, now: float) -> float | None:
        """Return the remaining seconds; None before the rate is known.

        Between two updates the time counts down, to the time of the parts after the current one.
        """
        start, n_before = self._samples[0]
        seconds, n_done = self._updated_at - start, self.done - n_before
        if seconds <= 0 or n_done <= 0:
            return None
        n_left, per_part = self.total - self.done, seconds / n_done
        left = n_left * per_part - (now - self._updated_at)
        return max(left, (n_left - 1) * per_part, 0.0)


def ignore_progress(what: str, done: int, total: int) -> None:
    """Do nothing: the default `Progress`."""
