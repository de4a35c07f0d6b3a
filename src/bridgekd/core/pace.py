"""How many calls are in flight at once, and how long a failed one waits.

Fewer when the server throttles, slowly more while it answers: additive increase, multiplicative
decrease. Neither changes what is bought, only when.
"""

import math
import random
import re

SHRINK = 0.75
SUCCESSES_PER_STEP = 25

_PART = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


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


class Allowance:
    """What the user lets go out: `per_minute` on the long run and `burst` at once.

    A bucket that fills continuously up to `burst`. Kept true: what is taken in any 60 seconds,
    less what of it is given back, is at most `per_minute + burst`.
    """

    def __init__(self, per_minute: float, burst: float) -> None:
        if not (per_minute > 0 and burst > 0):
            raise ValueError(
                f"an allowance must be above 0: {per_minute} a minute, {burst} at once"
            )
        self._per_s = per_minute / 60
        self._burst = burst
        self._level = burst
        self._seen = -math.inf  # when the level was looked at
        self._n_taken = 0
        self._peaks: list[tuple[int, float]] = []  # (which take, the level before it), falling

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` fits; infinite where it is more than `burst` and never will."""
        if amount > self._burst:
            return math.inf
        self._fill(now)
        return max(0.0, (amount - self._level) / self._per_s)

    def take(self, now: float, amount: float) -> int:
        """Takes what fits now and returns the take's number, by which to give back."""
        if self.wait_s(now, amount) > 1e-6:  # who has waited may be a rounding error short
            raise ValueError(f"{amount} does not fit yet; wait {self.wait_s(now, amount):g} s")
        self._n_taken += 1
        self._note(self._n_taken, self._level)
        self._level -= amount
        return self._n_taken

    def give_back(self, amount: float, taken: int) -> None:
        """Makes the take number `taken` smaller by `amount`, as if it had been so from the start.

        Had it been smaller, the bucket would have been fuller ever since, but never above its
        brim: what would have run over is not given back.
        """
        later = [level for number, level in self._peaks if number > taken]
        amount = max(0.0, min(amount, self._burst - max([self._level, *later])))
        self._level += amount
        peaks, self._peaks = self._peaks, []
        for number, level in peaks:
            self._note(number, level + amount * (number > taken))

    def _fill(self, now: float) -> None:
        if now > self._seen:
            self._level = min(self._burst, self._level + (now - self._seen) * self._per_s)
            self._seen = now

    def _note(self, number: int, level: float) -> None:
        """Of two peaks only the higher counts, if it is the later one."""
        while self._peaks and self._peaks[-1][1] <= level:
            self._peaks.pop()
        self._peaks.append((number, level))


def reset_s(header: str) -> float | None:
    """Seconds of a reset header as OpenAI writes it: 12ms, 1s, 6m0s, 1h2m3.5s; else None."""
    found = _DURATION.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True))
