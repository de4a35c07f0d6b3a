"""The sandbox teacher speaks the protocol, fails when told to, and counts what it billed."""

import json
import urllib.error
import urllib.request

import pytest

from bridgekd.core.costs import cost_microusd
from bridgekd.sandbox.teacher_server import (
    SANDBOX_MODEL,
    SANDBOX_PRICE,
    Faults,
    count_tokens,
    request_key,
    serve,
)


def scripted(question, seed):
    return f"We read {question}. So it is clear. Answer: 4"


def body(question="2 + 2", **more):
    messages = [{"role": "user", "content": question}]
    return {"model": SANDBOX_MODEL, "messages": messages, "max_tokens": 50, **more}


def post(server, request, path="/chat/completions"):
    """Status, JSON and headers of one POST."""
    sent = urllib.request.Request(server.base_url + path, json.dumps(request).encode())
    try:
        with urllib.request.urlopen(sent, timeout=10) as got:
            return got.status, json.loads(got.read()), got.headers
    except urllib.error.HTTPError as got:
        with got:
            return got.code, json.loads(got.read()), got.headers


def test_an_answer_has_text_usage_and_a_price():
    with serve(scripted) as server:
        status, answer, headers = post(server, body())
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == scripted("2 + 2", 0)
        n_prompt, n_completion = 3, count_tokens(scripted("2 + 2", 0))
        assert answer["usage"]["prompt_tokens"] == n_prompt
        assert answer["usage"]["completion_tokens"] == n_completion
        assert server.billed == cost_microusd(SANDBOX_PRICE, n_prompt, n_completion)
        assert int(headers["x-ratelimit-remaining-requests"]) > 0
        assert server.calls == server.served == {request_key(body()): 1}


def test_models_and_stats_are_listed():
    with serve(scripted) as server:
        with urllib.request.urlopen(server.base_url + "/models", timeout=10) as got:
            assert json.load(got)["data"][0]["id"] == SANDBOX_MODEL
        post(server, body())
        with urllib.request.urlopen(server.base_url[:-3] + "/stats", timeout=10) as got:
            stats = json.load(got)
        assert (stats["n_calls"], stats["n_served"]) == (1, 1)
        assert stats["billed_microusd"] == server.billed


def test_it_listens_on_loopback_only():
    with serve(scripted) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_long_answer_is_cut_at_max_tokens():
    with serve(scripted) as server:
        answer = post(server, body(max_tokens=3))[1]
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["choices"][0]["message"]["content"] == "We read 2"
        assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        (Faults(throttle=1.0, retry_after_s=7), 429, "rate_limit_exceeded"),
        (Faults(quota_after=0), 429, "insufficient_quota"),
        (Faults(refuse=1.0), 400, "content_filter"),
        (Faults(error=1.0), (500, 503), "server_error"),
    ],
)
def test_a_fault_has_its_status_and_is_not_billed(faults, status, code):
    with serve(scripted, faults=faults) as server:
        got, answer, headers = post(server, body())
        assert got in (status if isinstance(status, tuple) else (status,))
        assert answer["error"]["code"] == code
        assert headers.get("Retry-After") == ("7" if faults.throttle else None)
        assert server.billed == 0


def test_a_dropped_call_is_billed_but_not_answered():
    with serve(scripted, faults=Faults(drop=1.0)) as server:
        with pytest.raises(OSError):
            post(server, body())
        assert server.billed > 0


def test_a_wrong_request_is_told_so():
    with serve(scripted, api_key="right") as server:
        assert post(server, body())[0] == 401
    with serve(scripted) as server:
        assert post(server, body(model="other"))[1]["error"]["code"] == "model_not_found"
        assert post(server, {"model": SANDBOX_MODEL})[0] == 400
        assert post(server, [])[0] == 400
        assert post(server, body(), "/elsewhere")[0] == 404


def statuses(seed, faults):
    with serve(scripted, faults=faults, seed=seed) as server:
        return [post(server, body(f"q{n % 15}"))[0] for n in range(45)]


def test_faults_are_the_same_for_the_same_seed_and_differ_between_attempts():
    faults = Faults(throttle=0.3, error=0.2)
    first = statuses(1, faults)
    assert first == statuses(1, faults) != statuses(2, faults)
    assert first[:15] != first[15:30]


def test_what_belongs_to_the_answer_is_the_same_at_every_attempt():
    seen = statuses(3, Faults(refuse=0.5))
    assert seen[:15] == seen[15:30] == seen[30:]
    assert set(seen) == {200, 400}


def test_the_default_teacher_is_the_sandbox_world():
    with serve(wrong_rate=0.0) as server:
        status, answer, _ = post(server, body("no question of this world"))
        assert status == 400
        assert "no question of this world" in answer["error"]["message"]
