"""How fast calls go out: the width, the waits, the user's own caps."""

import heapq
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.core.pace import Allowance, Pace, backoff, reset_s


class Teacher:
    """A server in virtual time, and a client that does nothing but what the pace says.

    Its bucket holds `burst` calls and fills with `rate` a second (after `steps`, another); a call
    that does not fit is told when one will. `most` and `latency_s` bound the client.
    """

    def __init__(self, most, latency_s, rate, *, burst, spread=0.0, steps=(), whole=False):
        self.pace, self.most, self.dice = Pace(most), most, random.Random(0)
        self.latency_s, self.spread, self.whole = latency_s, spread, whole
        self.rate, self.burst, self.steps = rate, burst, list(steps)
        self.level, self.filled = burst, 0.0
        self.looks_at = 0.0
        self.now, self.n_out, self.n_waiting, self.n_asleep = 0.0, 0, 0, 0
        self.events, self.answers, self.n_throttled = [], [], 0

    def run(self, until):
        self.send()
        while self.events and self.events[0][0] < until:
            self.now, _, what, value = heapq.heappop(self.events)
            getattr(self, what)(value)
            self.send()
        return self

    def within(self, since, until):
        return sum(since <= moment < until for moment in self.answers)

    def later(self, wait_s, what, value=None):
        heapq.heappush(self.events, (self.now + wait_s, self.dice.random(), what, value))

    def send(self):
        pace, n_taken = self.pace, self.n_out + self.n_asleep
        while self.n_out < pace.width and (self.n_waiting or n_taken < self.most):
            if wait_s := pace.wait_s(self.now):
                if self.looks_at <= self.now:
                    self.looks_at = self.now + wait_s
                    self.later(wait_s, "look")
                return
            self.n_waiting, self.n_out = max(0, self.n_waiting - 1), self.n_out + 1
            n_taken = self.n_out + self.n_waiting + self.n_asleep
            pace.sent(self.now)
            if wait_s := self.taken():
                self.later(
                    0.005, "refused", (self.now, math.ceil(wait_s) if self.whole else wait_s)
                )
            else:
                self.later(self.latency_s * math.exp(self.dice.gauss(0, self.spread)), "answered")

    def taken(self):
        """0 where the bucket lets a call in, else the seconds until it would."""
        while self.steps and self.steps[0][0] <= self.now:
            self.rate = self.steps.pop(0)[1]
        self.level = min(self.burst, self.level + (self.now - self.filled) * self.rate)
        self.filled = self.now
        if self.level < 1 - 1e-9:
            return (1 - self.level) / self.rate
        self.level -= 1
        return 0.0

    def look(self, _):
        pass

    def answered(self, _):
        self.n_out -= 1
        self.pace.answered()
        self.answers.append(self.now)

    def refused(self, told):
        sent_at, wait_s = told
        self.n_out, self.n_asleep, self.n_throttled = (
            self.n_out - 1,
            self.n_asleep + 1,
            1 + (self.n_throttled),
        )
        self.pace.throttled(sent_at, wait_s)
        self.later(wait_s, "woken")

    def woken(self, _):
        self.n_asleep, self.n_waiting = self.n_asleep - 1, self.n_waiting + 1


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("burst_s", [0.1, 1.0])
@pytest.mark.parametrize(
    ("most", "latency_s", "spread", "rate"),
    [(32, 0.2, 0.0, 50), (24, 0.2, 0.3, 100), (64, 2.0, 0.5, 20), (16, 1.0, 0.2, 12)],
)
def test_what_a_server_takes_is_used(most, latency_s, spread, rate, burst_s, whole):
    teacher = Teacher(
        most, latency_s, rate, burst=max(2, rate * burst_s), spread=spread, whole=whole
    ).run(70)
    assert teacher.within(10, 70) >= 0.95 * 60 * rate
    assert teacher.n_throttled <= 0.1 * len(teacher.answers) + most


def test_a_server_that_keeps_calls_strictly_apart_is_used_too():
    teacher = Teacher(32, 0.2, 50, burst=1).run(70)
    assert teacher.within(10, 70) >= 0.75 * 60 * 50


@pytest.mark.parametrize("burst_s", [0.1, 1.0])
@pytest.mark.parametrize(("before", "after"), [(100, 50), (50, 100)])
def test_a_rate_that_changes_is_followed(before, after, burst_s):
    teacher = Teacher(40, 0.2, before, burst=before * burst_s, steps=[(20, after)]).run(40)
    assert teacher.within(10, 20) >= 0.95 * 10 * before
    assert teacher.within(20, 40) >= 0.95 * 20 * after
    assert teacher.n_throttled <= 0.1 * len(teacher.answers) + 40


def test_nothing_is_held_back_until_a_server_throttles():
    teacher = Teacher(16, 0.2, 1e9, burst=1e9).run(20)
    assert len(teacher.answers) >= 16 * 99  # a round each 0.2 s
    assert teacher.pace.wait_s(20) == 0


def test_the_pace_shrinks_once_a_round_and_grows_with_answers():
    pace = Pace(100)
    for _ in range(70):
        pace.throttled(0.0)
    assert pace.width == 75
    for _ in range(1000):
        pace.answered()
    assert pace.width == 100
    for _ in range(1000):
        pace.throttled(0.0)
    assert pace.width == 1


def measured(most):
    """A pace at full width that has measured the speed: 10 a second."""
    pace = Pace(most)
    for moment in range(40):
        pace.sent(moment / 10)
        if moment in (20, 39):
            pace.throttled(moment / 10)
    for _ in range(25 * most):
        pace.answered()
    assert pace.width == most
    return pace


def test_growth_is_fast_far_from_the_last_limit_and_slow_near_it():
    pace = measured(100)
    for _ in range(50):  # the first is rare and does not count
        pace.throttled(99.0)
    assert pace.width == 75
    for _ in range(20):
        pace.answered()
    assert pace.width == 95
    for _ in range(25):
        pace.answered()
    assert pace.width == 96


def test_a_rare_refusal_costs_speed_but_no_width():
    pace = measured(100)
    pace.throttled(99.0)
    assert pace.width == 100


def test_calls_go_out_evenly_at_the_speed_that_was_measured():
    pace, now, gaps = measured(100), 4.0, []
    for _ in range(20):
        gaps.append(pace.wait_s(now))
        now += gaps[-1]
        pace.sent(now)
    assert all(0.09 < gap < 0.12 for gap in gaps[2:])  # at first a late one is made up for


def test_waiting_doubles_up_to_a_limit():
    waits = [backoff(n, 0.5, 60, random.Random(n)) for n in range(1, 12)]
    assert all(min(60, 0.5 * 2**n) / 2 <= w <= min(60, 0.5 * 2**n) for n, w in enumerate(waits))


@given(
    st.sampled_from([6.0, 60.0, 777.7]),
    st.sampled_from([1.0, 10.0, 100.0]),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0]),
            st.sampled_from([0.5, 1.0]),
            st.sampled_from([0.0, 0.7, 1.0]),
            st.integers(0, 2),
        ),
        max_size=60,
    ),
)
@settings(max_examples=400)
def test_no_minute_holds_more_than_the_allowance(per_minute, burst, asked):
    """Each request: the time since the last in fillings of the bucket, its size and what of it is
    used as shares, and how many requests later the rest is given back."""
    allowance = Allowance(per_minute, burst)
    now, used, due = 0.0, [], {}
    for place, (gap, size, share, later) in enumerate(asked):
        now += gap * burst / per_minute * 60
        amount = size * burst
        now += allowance.wait_s(now, amount)
        used.append((now, amount * share))
        taken = allowance.take(now, amount)
        due.setdefault(place + later, []).append((amount * (1 - share), taken))
        for unused in due.pop(place, ()):
            allowance.give_back(*unused)
    for first, (since, _) in enumerate(used):
        within = sum(amount for moment, amount in used[first:] if moment <= since + 60)
        assert within <= (per_minute + burst) * (1 + 1e-9) + 1e-3


@given(st.floats(1, 10_000), st.floats(1, 1000), st.floats(0.01, 1))
def test_an_allowance_is_used_up_in_full(per_minute, burst, size):
    allowance, now, amount = Allowance(per_minute, burst), 0.0, 0.0
    for _ in range(100):
        now += allowance.wait_s(now, size * burst)
        allowance.take(now, size * burst)
        amount += size * burst
    assert amount >= burst + now / 60 * per_minute - size * burst - 1e-3


def test_what_is_given_back_at_once_may_be_taken_at_once():
    allowance = Allowance(60, 10)
    taken = allowance.take(0, 10)
    assert allowance.wait_s(0, 10) == 10
    allowance.give_back(8, taken)
    assert allowance.wait_s(0, 8) == 0
    assert allowance.wait_s(0, 10) == 2


def test_what_would_have_run_over_is_not_given_back():
    allowance = Allowance(60, 10)
    taken = allowance.take(0, 10)
    allowance.take(10, 10)  # the bucket was full again: the first take no longer weighs on it
    allowance.give_back(8, taken)
    assert allowance.wait_s(10, 10) == 10


def test_two_takes_do_not_give_the_same_room_back_twice():
    allowance = Allowance(60, 10)
    first, second = allowance.take(0, 2), allowance.take(0, 8)
    allowance.take(5, 5)
    allowance.give_back(8, second)  # 5 of it: then the bucket would have been full before the third
    assert allowance.wait_s(5, 5) == 0
    allowance.give_back(2, first)
    assert allowance.wait_s(5, 6) == 1


def test_more_than_fits_at_once_never_fits():
    allowance = Allowance(60, 10)
    assert allowance.wait_s(0, 11) == float("inf")
    with pytest.raises(ValueError, match="does not fit"):
        allowance.take(0, 11)
    with pytest.raises(ValueError, match="above 0"):
        Allowance(0, 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1d0h", 86_400.0),
        ("0s", 0.0),
        (" 1s ", 1.0),
    ],
)
def test_a_reset_header_is_read_as_seconds(header, seconds):
    assert reset_s(header) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "header", ["", "12", "s", "-1s", "1s1m", "1e3s", "soon", "2026-01-01T00:00:00Z"]
)
def test_any_other_reset_header_says_nothing(header):
    assert reset_s(header) is None
