"""How fast calls go out: the width, the waits, the user's own caps."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.core.pace import Allowance, Pace, backoff, reset_s


def test_the_pace_shrinks_once_a_round_and_grows_with_answers():
    pace = Pace(16)
    for _ in range(10):
        pace.throttled()
    assert pace.width == 12
    for _ in range(25):
        pace.answered()
    assert pace.width == 13
    for _ in range(1000):
        pace.answered()
    assert pace.width == 16
    for _ in range(1000):
        pace.throttled()
    assert pace.width == 1


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
