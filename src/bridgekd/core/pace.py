"""How many calls are in flight at once, how fast they go out, and how long a failed one waits.

The one idea: a server that throttles says what it takes. Its bucket is empty at that moment, so
what it let in since the last time is what flows in, and calls then go out at that speed: first a
little below and then, the longer nothing is throttled, the faster. Beside that, the width is
additive increase, multiplicative decrease. Nothing here changes what is bought, only when. Times
are seconds of any steady clock.
"""

import math
import random
import re
from bisect import bisect_left, bisect_right

SHRINK = 0.75
SUCCESSES_PER_STEP = 25  # near the last limit; below it a step for every success, above for every 5
SUCCESSES_PER_STEP_ABOVE = 5
NEAR = 0.95
SENDS_TO_LIMIT = 25  # after a measuring: so many sends until the speed is back at what was measured
SENDS_TO_MEASURE = 10
SENDS_TO_DOUBLE, S_TO_DOUBLE = 4, 0.25  # before the first measuring, the later of the two
SENDS_KEPT = 500
FIRST_S = 0.5  # less time than this says nothing about a speed

_PART = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


class Pace:
    """The number of calls that may be in flight, between 1 and `most`, where it starts; and when
    the next may go out.

    Everything that goes out, a second try too, is told by `sent`.
    """

    def __init__(self, most: int) -> None:
        self.n_answered = 0
        self._most = most
        self._width = float(most)
        self._limit = float(most)  # the width when the server last found it too much
        self._n_good = 0  # answers since the last change
        self._n_round = most  # outcomes since the last shrinking
        self._n_at_throttle = 0  # answers until the last throttling
        self._speed = _Speed()

    @property
    def width(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._width))

    def wait_s(self, now: float) -> float:
        """Seconds until the next call may go out."""
        return self._speed.wait_s(now)

    def sent(self, now: float) -> None:
        """One more call has gone out."""
        self._speed.sent(now)

    def answered(self) -> None:
        """One more answer: a step up after every 25, sooner where that is far from the limit."""
        self.n_answered += 1
        self._n_round += 1
        self._n_good += 1
        if self._n_good >= self._successes_per_step():
            self._n_good = 0
            self._width = min(self._most, self._width + 1)

    def throttled(self, sent_at: float, retry_after_s: float | None = None) -> None:
        """The server refused, for now, a call that went out at `sent_at`.

        The speed is set by what it did let in, and the width goes down by a quarter, once for all
        calls that were in flight. Once the speed is known, a refusal now and then is only what it
        is probed by, and the width stays.
        """
        rare = self.n_answered - self._n_at_throttle >= SUCCESSES_PER_STEP
        self._n_at_throttle = self.n_answered
        self._n_good = 0
        self._n_round += 1
        if self._n_round >= self.width and not (rare and self._speed.is_measured):
            self._n_round = 0
            if self._speed.is_measured:
                self._limit = self._width
            self._width = max(1.0, self._width * SHRINK)
        self._speed.throttled(sent_at, retry_after_s)

    def _successes_per_step(self) -> int:
        if self._width < NEAR * self._limit:
            return 1
        near = self._width <= self._limit / NEAR + 1
        return SUCCESSES_PER_STEP if near else SUCCESSES_PER_STEP_ABOVE


class _Speed:
    """Calls a second, unlimited until the first throttling.

    The first guess is what was let in until then, or what Retry-After says if that is more; it
    doubles every few sends until a throttling comes that can be measured by. From then on the
    speed is a cubic of the sends since the last measuring: up to what was measured, flat there,
    then ever steeper. All is counted by when calls went out, because refusals come back at once
    and answers long after.
    """

    def __init__(self) -> None:
        self.is_measured = False
        self._per_s = math.inf  # at the last measuring
        self._n_sent = 0  # since then, and only those that had to wait: only they tested the speed
        self._has_waited = False
        self._next = -math.inf  # when the next may go out
        self._guessed = 0.0  # when the first guess was made
        self._mark: float | None = None  # when the throttled call went out that is measured from
        self._let_in: list[float] = []  # when calls went out that were not refused

    def per_s(self, now: float) -> float:
        if not self.is_measured:
            seconds = now - self._guessed
            return self._per_s * 2 ** min(self._n_sent / SENDS_TO_DOUBLE, seconds / S_TO_DOUBLE)
        return self._per_s * (1 + (1 - NEAR) * (self._n_sent / SENDS_TO_LIMIT - 1) ** 3)

    def wait_s(self, now: float) -> float:
        wait = max(0.0, self._next - now)
        self._has_waited = self._has_waited or wait > 0
        return wait

    def sent(self, now: float) -> None:
        self._let_in.append(now)  # until it is known better
        if len(self._let_in) > 2 * SENDS_KEPT:
            del self._let_in[:SENDS_KEPT]
        if self._per_s < math.inf:
            gap = 1 / self.per_s(now)
            self._n_sent += self._has_waited
            self._has_waited = False
            self._next = max(self._next, now - gap / 2) + gap  # a late timer is made up for

    def throttled(self, sent_at: float, retry_after_s: float | None) -> None:
        place = bisect_left(self._let_in, sent_at)
        if place < len(self._let_in) and self._let_in[place] == sent_at:
            del self._let_in[place]
        if self._mark is None:
            self._mark = sent_at
        if not self.is_measured and sent_at <= self._mark:
            n = bisect_right(self._let_in, self._mark)
            seconds = max(FIRST_S, self._mark - self._let_in[0]) if n else FIRST_S
            said = 1 / retry_after_s if retry_after_s else 0.0  # one call will fit by then
            self._per_s, self._n_sent = max(n / seconds, said, 1.0), 0
            self._guessed = sent_at
        elif sent_at > self._mark:
            self._measure(sent_at, self._mark)

    def _measure(self, now: float, since: float) -> None:
        end = bisect_right(self._let_in, now)
        n = end - bisect_right(self._let_in, since)
        has_grown, self._n_sent = self._n_sent > 2 * SENDS_TO_LIMIT, 0
        if n < (SENDS_TO_MEASURE if self.is_measured else SENDS_TO_MEASURE // 2):
            return
        if n > SENDS_TO_MEASURE:
            # Long ago the speed was lower and the bucket may have run over: the last ones tell.
            n = SENDS_TO_MEASURE if has_grown else max(SENDS_TO_MEASURE, n // 2)
            since = self._let_in[end - n]  # from there to here are n gaps
        self._per_s = n / max(1e-3, now - since)
        self._mark, self.is_measured = now, True


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
        self.burst = burst
        self._level = burst
        self._seen = -math.inf  # when the level was looked at
        self._n_taken = 0
        self._peaks: list[tuple[int, float]] = []  # (which take, the level before it), falling

    def wait_s(self, now: float, amount: float) -> float:
        """Seconds until `amount` fits; infinite where it is more than `burst` and never will."""
        if amount > self.burst:
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
        amount = max(0.0, min(amount, self.burst - max([self._level, *later])))
        self._level += amount
        peaks, self._peaks = self._peaks, []
        for number, level in peaks:
            self._note(number, level + amount * (number > taken))

    def _fill(self, now: float) -> None:
        if now > self._seen:
            self._level = min(self.burst, self._level + (now - self._seen) * self._per_s)
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
