"""How fast requests are sent: the rate, the waits, the user's limits."""

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.api_client.openai_client import compute_backoff_s
from bridgekd.api_client.retry_delay import parse_duration
from bridgekd.teacher.rate_limit import AdaptiveLimiter, TokenBucket


class VirtualServer:
    """A server in virtual time, and a client that follows the limiter.

    Its bucket holds `burst` requests and fills at `rate` per second (see `steps`). A request
    that does not fit gets the time when one will. `max_open` and `latency_s` limit the client.
    """

    def __init__(
        self, max_open, latency_s, rate, *, burst, spread=0.0, steps=(), whole_seconds=False
    ):
        self.limiter, self.max_open, self.rng = AdaptiveLimiter(), max_open, random.Random(0)
        self.latency_s, self.spread, self.whole_seconds = latency_s, spread, whole_seconds
        self.rate, self.burst, self.steps = rate, burst, list(steps)
        self.level, self.filled = burst, 0.0
        self.looks_at = 0.0
        self.now, self.n_out, self.n_waiting, self.n_asleep = 0.0, 0, 0, 0
        self.events, self.answers, self.n_refused = [], [], 0

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
        heapq.heappush(self.events, (self.now + wait_s, self.rng.random(), what, value))

    def send(self):
        limiter, n_taken = self.limiter, self.n_out + self.n_asleep
        while self.n_out < self.max_open and (self.n_waiting or n_taken < self.max_open):
            if wait_s := limiter.get_wait_s(self.now):
                if self.looks_at <= self.now:
                    self.looks_at = self.now + wait_s
                    self.later(wait_s, "look")
                return
            self.n_waiting, self.n_out = max(0, self.n_waiting - 1), self.n_out + 1
            n_taken = self.n_out + self.n_waiting + self.n_asleep
            limiter.record_sent(self.now)
            if wait_s := self.take():
                wait_s = math.ceil(wait_s) if self.whole_seconds else wait_s
                self.later(0.005, "refused", (self.now, wait_s))
            else:
                self.later(self.latency_s * math.exp(self.rng.gauss(0, self.spread)), "answered")

    def take(self):
        """Return 0 if the bucket admits a request, else the seconds until it would."""
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
        self.limiter.record_end()
        self.answers.append(self.now)

    def refused(self, sent_at_and_wait_s):
        sent_at, wait_s = sent_at_and_wait_s
        self.n_out, self.n_asleep = self.n_out - 1, self.n_asleep + 1
        self.n_refused += 1
        self.limiter.record_rate_limit(sent_at, self.now)
        self.later(wait_s, "woken")

    def woken(self, _):
        self.n_asleep, self.n_waiting = self.n_asleep - 1, self.n_waiting + 1


@pytest.mark.parametrize("whole_seconds", [False, True])
@pytest.mark.parametrize("burst_s", [0.1, 1.0])
@pytest.mark.parametrize(
    ("max_open", "latency_s", "spread", "rate"),
    [
        (32, 0.2, 0.0, 50),
        (24, 0.2, 0.3, 100),
        (64, 2.0, 0.5, 20),
        (16, 1.0, 0.2, 12),
        (16, 2.0, 0.2, 4),
    ],
)
def test_the_rate_that_a_server_accepts_is_used(
    max_open, latency_s, spread, rate, burst_s, whole_seconds
):
    burst = max(2, rate * burst_s)
    server = VirtualServer(
        max_open, latency_s, rate, burst=burst, spread=spread, whole_seconds=whole_seconds
    ).run(70)
    assert server.within(10, 70) >= 0.95 * 60 * rate
    assert server.n_refused <= 0.05 * len(server.answers) + 2 * max_open


def test_a_server_with_a_burst_of_one_is_used_well():
    server = VirtualServer(32, 0.2, 50, burst=1).run(70)
    assert server.within(10, 70) >= 0.75 * 60 * 50


@pytest.mark.parametrize("burst_s", [0.1, 1.0])
@pytest.mark.parametrize(("before", "after"), [(100, 50), (50, 100), (100, 10)])
def test_a_rate_that_changes_is_followed(before, after, burst_s):
    server = VirtualServer(40, 0.2, before, burst=before * burst_s, steps=[(20, after)]).run(40)
    assert server.within(10, 20) >= 0.95 * 10 * before
    assert server.within(20, 40) >= 0.95 * 20 * after
    assert server.n_refused <= 0.05 * len(server.answers) + 80


def test_nothing_is_delayed_until_the_first_rate_limit():
    server = VirtualServer(16, 0.2, 1e9, burst=1e9).run(20)
    assert len(server.answers) >= 16 * 99  # one round per 0.2 s
    assert server.limiter.get_wait_s(20) == 0


def make_limited(rate):
    """Return a limiter that sent at `rate` and was rate-limited at 10 s."""
    limiter = AdaptiveLimiter()
    for n in range(10 * rate + 1):
        limiter.record_sent(n / rate)
    limiter.record_rate_limit(10.0, 10.0)
    return limiter


def send(limiter, n, now):
    for _ in range(n):
        now += limiter.get_wait_s(now)
        limiter.record_sent(now)
    return now


def test_the_first_guess_is_what_went_out_in_the_last_second():
    assert make_limited(50).rate == pytest.approx(0.9 * 51)


def test_an_early_refusal_by_chance_does_not_slow_a_purchase_down():
    """Three requests ended within 30 ms: the server accepts 100 a second, not 4."""
    limiter = AdaptiveLimiter()
    for n in range(3):
        limiter.record_sent(n / 100)
        limiter.record_end()
    limiter.record_sent(0.03)
    limiter.record_rate_limit(0.03, 0.03)
    assert limiter.rate == pytest.approx(0.9 * 100)


def test_a_refusal_lowers_the_rate_once_for_all_requests_in_flight():
    limiter = make_limited(50)
    for sent_at in (9.0, 9.9, 9.99):
        limiter.record_rate_limit(sent_at, 10.1)
    assert limiter.rate == pytest.approx(0.9 * 51)
    limiter.record_rate_limit(10.2, 10.3)
    assert limiter.rate == pytest.approx(0.9 * 0.9 * 51)


def test_the_rate_is_back_after_forty_requests_and_then_grows_ever_faster():
    limiter, now, rates = make_limited(50), 10.0, []
    for _ in range(4):
        now = send(limiter, 40, now)
        rates.append(limiter.rate / 51)
    assert rates == pytest.approx([1.0, 1.1, 1.8, 3.7], rel=0.02)


def test_requests_that_nothing_delayed_do_not_raise_the_rate():
    limiter = make_limited(50)
    for n in range(100):
        limiter.record_sent(20.0 + n)
    assert limiter.rate == pytest.approx(0.9 * 51)


def test_requests_go_out_evenly():
    limiter, now, gaps = make_limited(50), 11.0, []
    for _ in range(20):
        gaps.append(limiter.get_wait_s(now))
        now = send(limiter, 1, now)
    assert all(1 / 51 < gap < 1 / 45 for gap in gaps[2:])  # a late one is compensated at first


def test_waiting_doubles_up_to_a_limit():
    waits = [compute_backoff_s(n, 0.5, 60, random.Random(n)) for n in range(1, 12)]
    assert all(min(60, 0.5 * 2**n) / 2 <= w <= min(60, 0.5 * 2**n) for n, w in enumerate(waits))


@given(
    st.sampled_from([6.0, 60.0, 777.7, 30_000.0]),
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.1, 1.0])), max_size=80),
)
def test_no_minute_holds_more_than_the_user_allows(per_minute, requests):
    """Each request: the seconds since the last, and its size in bursts."""
    bucket, now, taken = TokenBucket(per_minute), 0.0, []
    for gap_s, size in requests:
        now += gap_s
        amount = size * per_minute / 61
        now += bucket.get_wait_s(now, amount)
        bucket.take(amount)
        taken.append((now, amount))
    for first, (since, _) in enumerate(taken):
        within = sum(amount for moment, amount in taken[first:] if moment <= since + 60)
        assert within <= per_minute * (1 + 1e-9)


@given(st.floats(1, 10_000), st.floats(0.01, 3))
def test_the_limit_of_the_user_is_used_up(per_minute, size):
    bucket, now, amount = TokenBucket(per_minute), 0.0, size * per_minute / 61
    for _ in range(100):
        now += bucket.get_wait_s(now, amount)
        bucket.take(amount)
    assert 100 * amount >= now * per_minute / 61 * 0.99


def test_what_was_not_used_may_be_taken_at_once_but_no_more_than_a_burst():
    bucket = TokenBucket(61 * 10)
    assert bucket.get_wait_s(0, 10) == 0
    bucket.take(10)
    assert bucket.get_wait_s(0, 8) == 0.8
    bucket.refund(8)
    assert bucket.get_wait_s(0, 8) == 0
    bucket.refund(100)
    bucket.take(10)
    assert bucket.get_wait_s(0, 1) == 0.1


def test_more_than_a_burst_needs_a_full_bucket_and_is_paid_off_behind_it():
    bucket = TokenBucket(61 * 10)
    assert bucket.get_wait_s(0, 50) == 0
    bucket.take(50)
    assert bucket.get_wait_s(0, 50) == 5.0


def test_a_limit_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0)


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
    assert parse_duration(header) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "header", ["", "12", "s", "-1s", "1s1m", "1e3s", "soon", "2026-01-01T00:00:00Z"]
)
def test_any_other_reset_header_is_ignored(header):
    assert parse_duration(header) is None
