"""How many calls are in flight at once, and how long a failed one waits.

Fewer when the server throttles, slowly more while it answers: additive increase, multiplicative
decrease. Neither changes what is bought, only when.
"""

import random

SHRINK = 0.75
SUCCESSES_PER_STEP = 25


class Pace:
    """The number of calls that may be in flight, between 1 and `most`, where it starts."""

    def __init__(self, most: int) -> None:
        self.n_answered = 0
        self._most = most
        self._width = float(most)
        self._n_good = 0  # answers since the last change
        self._n_round = most  # outcomes since the last shrinking

    @property
    def width(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._width))

    def answered(self) -> None:
        """One more answer: a step up after every 25."""
        self.n_answered += 1
        self._n_round += 1
        self._n_good += 1
        if self._n_good >= SUCCESSES_PER_STEP:
            self._n_good = 0
            self._width = min(self._most, self._width + 1)

    def throttled(self) -> None:
        """The server asked for less: down by a quarter, once for all calls that were in flight."""
        self._n_good = 0
        self._n_round += 1
        if self._n_round >= self.width:
            self._n_round = 0
            self._width = max(1.0, self._width * SHRINK)


def backoff(n_failed: int, base_s: float, longest_s: float, dice: random.Random) -> float:
    """Seconds to wait after the n-th failure in a row: doubling, and up to half of it jitter."""
    return float(min(longest_s, base_s * 2 ** (n_failed - 1)) * dice.uniform(0.5, 1.0))
