"""The rate limits of the sandbox teacher: the headers agree with the level of the bucket."""

import json
import time
import urllib.error
import urllib.request

import pytest

from bridgekd.sandbox.teacher_server import SANDBOX_MODEL
from faulty_teacher import Faults, run_teacher_server
from faulty_teacher.rate_limit import RateLimitSpec, ServerRateLimiter, format_duration


def scripted(question, seed):
    return f"We read {question}. Answer: 4"


def body(question="2 + 2"):
    messages = [{"role": "user", "content": question}]
    return {"model": SANDBOX_MODEL, "messages": messages, "max_tokens": 50}


def post(server, request):
    """Status, JSON and headers of one POST."""
    sent = urllib.request.Request(
        server.base_url + "/chat/completions", json.dumps(request).encode()
    )
    try:
        with urllib.request.urlopen(sent, timeout=10) as got:
            return got.status, json.loads(got.read()), got.headers
    except urllib.error.HTTPError as got:
        with got:
            return got.code, json.loads(got.read()), got.headers


def limit_at(rate):
    """A limit, and a function that advances its clock."""
    now = [1000.0]
    limit = ServerRateLimiter(rate, lambda: now[0])
    return limit, lambda seconds: now.__setitem__(0, now[0] + seconds)


def taken(limit, n_tokens=0):
    """The number of requests that are accepted now."""
    n = 0
    while limit.acquire(n_tokens) == 0:
        n += 1
    return n


def test_bucket_accepts_a_burst_and_then_fills_at_its_rate():
    limit, move_on = limit_at(RateLimitSpec(requests_per_s=4, burst_s=2))
    assert taken(limit) == 8
    assert limit.acquire(0) == pytest.approx(0.25)
    move_on(0.75)
    assert taken(limit) == 3
    move_on(100)
    assert taken(limit) == 8


def test_slow_rate_accepts_one_request():
    limit, move_on = limit_at(RateLimitSpec(requests_per_s=0.1))
    assert taken(limit) == 1
    assert limit.acquire(0) == pytest.approx(10)
    move_on(limit.acquire(0))
    assert taken(limit) == 1


def test_tokens_are_limited_per_minute_and_a_rejection_takes_nothing():
    limit, move_on = limit_at(RateLimitSpec(requests_per_s=10, tokens_per_minute=600))
    assert taken(limit, 250) == 2
    assert limit.acquire(250) == pytest.approx(15)
    assert limit.build_headers()["x-ratelimit-remaining-requests"] == "8"
    assert limit.build_headers()["x-ratelimit-remaining-tokens"] == "100"
    move_on(15)
    assert taken(limit, 250) == 1
    assert limit.acquire(601) == float("inf")
    assert limit.build_retry_header(float("inf")) == {}


def test_rate_changes_at_its_steps_after_the_first_request():
    limit, move_on = limit_at(RateLimitSpec(requests_per_s=10, steps=((5, 2), (8, 20))))
    move_on(60)
    assert taken(limit) == 10
    move_on(6)
    assert limit.build_headers()["x-ratelimit-limit-requests"] == "2"
    assert taken(limit) == 2
    move_on(2.1)  # filled at 2 a second to the brim, then 0.1 s at 20 a second
    assert taken(limit) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (0.0101, "11ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (119.56, "1m59.56s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
    ],
)
def test_durations_have_the_format_of_the_headers(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_s": 0},
        {"requests_per_s": None, "steps": ((1, 2.0),)},
        {"requests_per_s": 1, "steps": ((2, 1.0), (1, 2.0))},
    ],
)
def test_invalid_rate_is_refused(wrong):
    with pytest.raises(ValueError, match=r"rate|steps"):
        RateLimitSpec(**wrong)


def test_request_over_the_rate_gets_a_retry_time_and_is_not_billed():
    rate = RateLimitSpec(requests_per_s=4, tokens_per_minute=60_000, burst_s=0)
    with run_teacher_server(scripted, rate=rate) as server:
        answers = [post(server, body(f"q{n}")) for n in range(6)]
        assert [status for status, _, _ in answers].count(429) == server.n_rate_limited >= 1
        assert server.served.total() + server.n_rate_limited == server.calls.total() == 6
        _, answer, headers = next(a for a in answers if a[0] == 429)
        assert answer["error"]["code"] == "rate_limit_exceeded"
        assert 0 < float(headers["Retry-After"]) <= 0.25
        time.sleep(float(headers["Retry-After"]))
        assert post(server, body("again"))[0] == 200


def test_every_answer_has_the_level_of_the_buckets():
    with run_teacher_server(
        scripted, rate=RateLimitSpec(requests_per_s=0.5, tokens_per_minute=600)
    ) as server:
        for status in (200, 429):
            got, _, headers = post(server, body("q" * 40))
            assert got == status
            assert headers["x-ratelimit-limit-requests"] == "1"
            assert headers["x-ratelimit-remaining-requests"] == "0"
            assert 1.5 < float(headers["x-ratelimit-reset-requests"][:-1]) <= 2
            assert headers["x-ratelimit-limit-tokens"] == "600"
            # 40 characters are 10 tokens, 50 more may be answered; 10 come back each second.
            assert 540 <= int(headers["x-ratelimit-remaining-tokens"]) <= 545
            assert headers["x-ratelimit-reset-tokens"].endswith("s")


def test_retry_after_can_be_whole_seconds():
    with run_teacher_server(
        scripted, rate=RateLimitSpec(requests_per_s=0.8, whole_seconds=True)
    ) as server:
        post(server, body())
        assert post(server, body())[2]["Retry-After"] == "2"


def test_faults_do_not_depend_on_rate_limited_requests():
    def outcomes(rate):
        with run_teacher_server(scripted, faults=Faults(error=0.5), seed=4, rate=rate) as server:
            got = []
            while len(got) < 8:
                status, _, headers = post(server, body())
                if status == 429:
                    time.sleep(float(headers["Retry-After"]))
                else:
                    got.append(status == 200)
            assert (server.n_rate_limited > 0) == (rate is not None)
            return got

    assert outcomes(None) == outcomes(RateLimitSpec(requests_per_s=50, burst_s=0.02))
    assert set(outcomes(None)) == {True, False}
