"""The faulty teacher follows the protocol, fails on request, and counts what it bills."""

import http.client
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from bridgekd.cost.request_cost import compute_cost_microusd
from bridgekd.sandbox import teacher_server
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL, estimate_tokens, hash_body
from bridgekd.sandbox.world import generate_examples
from faulty_teacher import SANDBOX_PRICE, Faults, run_teacher_server


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


def test_answer_has_text_usage_and_price():
    with run_teacher_server(scripted) as server:
        status, answer, headers = post(server, body())
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == scripted("2 + 2", 0)
        n_prompt, n_completion = 3, estimate_tokens(scripted("2 + 2", 0))
        assert answer["usage"]["prompt_tokens"] == n_prompt
        assert answer["usage"]["completion_tokens"] == n_completion
        assert server.billed == compute_cost_microusd(SANDBOX_PRICE, n_prompt, n_completion)
        assert int(headers["x-ratelimit-remaining-requests"]) > 0
        assert server.calls == server.served == {hash_body(body()): 1}


def test_models_and_stats_are_listed():
    with run_teacher_server(scripted) as server:
        with urllib.request.urlopen(server.base_url + "/models", timeout=10) as got:
            assert json.load(got)["data"][0]["id"] == SANDBOX_MODEL
        post(server, body())
        with urllib.request.urlopen(server.base_url[:-3] + "/stats", timeout=10) as got:
            stats = json.load(got)
        assert (stats["n_calls"], stats["n_served"]) == (1, 1)
        assert stats["billed_microusd"] == server.billed


def test_server_listens_on_loopback_only():
    with run_teacher_server(scripted) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_long_answer_is_truncated_at_max_tokens():
    with run_teacher_server(scripted) as server:
        answer = post(server, body(max_tokens=3))[1]
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["choices"][0]["message"]["content"] == "We read 2"
        assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        (Faults(rate_limit=1.0, retry_after_s=7), 429, "rate_limit_exceeded"),
        (Faults(quota_after=0), 429, "insufficient_quota"),
        (Faults(refuse=1.0), 400, "content_filter"),
        (Faults(error=1.0), (500, 503), "server_error"),
    ],
)
def test_fault_has_its_status_and_is_not_billed(faults, status, code):
    with run_teacher_server(scripted, faults=faults) as server:
        got, answer, headers = post(server, body())
        assert got in (status if isinstance(status, tuple) else (status,))
        assert answer["error"]["code"] == code
        assert headers.get("Retry-After") == ("7" if faults.rate_limit else None)
        assert server.billed == 0


def test_dropped_request_is_billed_but_not_answered():
    with run_teacher_server(scripted, faults=Faults(drop=1.0)) as server:
        with pytest.raises(OSError):
            post(server, body())
        assert server.billed > 0


def test_invalid_request_is_rejected():
    with run_teacher_server(scripted, api_key="right") as server:
        assert post(server, body())[0] == 401
    with run_teacher_server(scripted) as server:
        assert post(server, body(model="other"))[1]["error"]["code"] == "model_not_found"
        assert post(server, {"model": SANDBOX_MODEL})[0] == 400
        assert post(server, [])[0] == 400
        assert post(server, body(), "/elsewhere")[0] == 404


def statuses(seed, faults):
    with run_teacher_server(scripted, faults=faults, seed=seed) as server:
        return [post(server, body(f"q{n % 15}"))[0] for n in range(45)]


def test_faults_are_equal_for_one_seed_and_differ_between_attempts():
    faults = Faults(rate_limit=0.3, error=0.2)
    first = statuses(1, faults)
    assert first == statuses(1, faults) != statuses(2, faults)
    assert first[:15] != first[15:30]


def test_faults_of_the_answer_are_equal_for_every_attempt():
    seen = statuses(3, Faults(refuse=0.5))
    assert seen[:15] == seen[15:30] == seen[30:]
    assert set(seen) == {200, 400}


def test_default_teacher_is_the_sandbox_world():
    with run_teacher_server(wrong_rate=0.0) as server:
        status, answer, _ = post(server, body("no question of this world"))
        assert status == 400
        assert "no question of this world" in answer["error"]["message"]


def test_hundreds_of_connections_are_answered_at_once():
    all_are_open = threading.Barrier(300, timeout=60)

    def wait_for_all(question, seed):
        all_are_open.wait()
        return "Answer: 4"

    def ask(n):
        line = http.client.HTTPConnection(*server.server_address, timeout=60)
        line.request("POST", "/v1/chat/completions", json.dumps(body(f"q{n}")))
        with line.getresponse() as got:
            status = got.status
        line.close()
        return status

    with run_teacher_server(wait_for_all) as server, ThreadPoolExecutor(300) as many:
        assert list(many.map(ask, range(300))) == [200] * 300


def get_answer(server, request):
    """The message and the usage of an answer."""
    status, answer, _ = post(server, request)
    assert status == 200, answer
    return answer["choices"][0]["message"], answer["usage"]


def test_seed_changes_and_reproduces_sampled_answers():
    def texts(server, temperature):
        requests = [body(seed=n, temperature=temperature) for n in (1, 2, 1)]
        return [get_answer(server, request)[0]["content"] for request in requests]

    with run_teacher_server(lambda question, seed: f"It is {seed}") as server:
        first, other, again = texts(server, 0.7)
        assert first == again != other
        assert len({get_answer(server, body(temperature=0))[0]["content"], *texts(server, 0)}) == 1
        assert server.calls[hash_body(body(seed=1, temperature=0.7))] == 2


def test_json_answer_is_an_object_with_rationale_and_answer():
    with run_teacher_server(scripted) as server:
        message, usage = get_answer(server, body(response_format={"type": "json_object"}))
        assert json.loads(message["content"]) == {
            "rationale": "We read 2 + 2. So it is clear.",
            "answer": "4",
        }
        assert usage["completion_tokens"] == estimate_tokens(message["content"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "many"},
        {"max_completion_tokens": -1},
        {"temperature": 3},
        {"seed": "s"},
        {"reasoning_effort": "extreme"},
        {"response_format": {"type": "yaml"}},
    ],
)
def test_error_names_the_invalid_parameter(wrong):
    with run_teacher_server(scripted) as server:
        status, answer, _ = post(server, body(**wrong))
        assert (status, answer["error"]["param"]) == (400, next(iter(wrong)))
        assert server.calls.total() == 0


def reasoning_body(**more):
    return {name: value for name, value in body().items() if name != "max_tokens"} | more


def test_reasoning_tokens_are_returned_and_billed():
    with run_teacher_server(scripted, reasoning=True) as server:
        n_by_effort = []
        for effort in ("none", "low", "medium", "high"):
            before = server.billed
            message, usage = get_answer(server, reasoning_body(reasoning_effort=effort))
            n_reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
            assert message["content"] == scripted("2 + 2", 0)
            assert n_reasoning == estimate_tokens(message["reasoning_content"])
            assert usage["completion_tokens"] == n_reasoning + estimate_tokens(message["content"])
            n_completion = usage["completion_tokens"]
            assert server.billed - before == compute_cost_microusd(SANDBOX_PRICE, 3, n_completion)
            n_by_effort.append(n_reasoning)
        assert n_by_effort[0] == 0
        assert sorted(set(n_by_effort)) == n_by_effort


def test_reasoning_uses_the_limit_first():
    with run_teacher_server(scripted, reasoning=True) as server:
        _, answer, _ = post(server, reasoning_body(max_completion_tokens=10))
        (choice,) = answer["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
        assert answer["usage"]["completion_tokens"] == 10


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"max_tokens": 50}, "unsupported_parameter", "max_tokens"),
        ({"temperature": 0.7}, "unsupported_value", "temperature"),
    ],
)
def test_reasoning_model_rejects_unsupported_parameters(more, code, param):
    with run_teacher_server(scripted, reasoning=True) as server:
        status, answer, _ = post(server, reasoning_body(**more))
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, code, param)
        assert post(server, reasoning_body(temperature=1))[0] == 200
    with run_teacher_server(scripted) as server:
        assert post(server, reasoning_body(**more))[0] == 200


def test_each_provider_has_its_own_format_of_usage():
    def usage(style):
        with run_teacher_server(scripted, reasoning=True, cached=1.0, usage_style=style) as server:
            return get_answer(server, reasoning_body())[1], server.billed

    n_reasoning, n_answer = 28, 14  # two drafts of the answer, and the answer
    results = {style: usage(style) for style in ("openai", "gemini", "anthropic", "deepseek")}
    assert len({billed for _, billed in results.values()}) == 1
    plain = {"prompt_tokens": 3, "completion_tokens": 42, "total_tokens": 45}
    reasoning = {"completion_tokens_details": {"reasoning_tokens": n_reasoning}}
    cache = {"prompt_cache_hit_tokens": 1, "prompt_cache_miss_tokens": 2}
    assert results["anthropic"][0] == plain
    assert results["openai"][0] == plain | reasoning | {
        "prompt_tokens_details": {"cached_tokens": 1}
    }
    assert results["gemini"][0] == plain | {"completion_tokens": n_answer}
    assert results["deepseek"][0] == plain | reasoning | cache


def test_messages_before_the_last_one_can_be_cached():
    def cached(server, n):
        turns = [("system", "Be brief."), ("user", f"question {n}")]
        request = body(messages=[{"role": role, "content": text} for role, text in turns])
        return get_answer(server, request)[1]["prompt_tokens_details"]["cached_tokens"]

    with run_teacher_server(scripted, cached=0.5) as server:
        seen = [cached(server, n) for n in range(30)]
        assert set(seen) == {0, 3}
        assert seen == [cached(server, n) for n in range(30)]


def test_command_serves_the_teacher_of_its_seed():
    (example,) = generate_examples(1, 0)
    command = "sandbox serve --port 0 --seed 7"
    script = "from bridgekd.cli.main import main; main()"
    arguments = [sys.executable, "-c", script, *command.split()]
    request = body(example.question, max_tokens=500)
    with (
        run_teacher_server(seed=7) as server,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child,
    ):
        try:
            url = re.search(r"http://\S+/v1", child.stdout.readline())[0]
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                answer = client.chat.completions.create(**request)
                assert (
                    answer.choices[0].message.content == get_answer(server, request)[0]["content"]
                )
        finally:
            child.terminate()


@pytest.mark.parametrize(
    "change",
    [{}, {"max_tokens": 5}, {"max_tokens": -1}, {"messages": []}, {"model": "other"},
     {"temperature": 0, "seed": 3}, {"temperature": 1, "seed": 3},
     {"messages": [{"role": "user", "content": "What is this?"}]}],
)  # fmt: skip
def test_the_teacher_of_the_sandbox_answers_as_the_one_without_faults(change):
    (example,) = generate_examples(1, 0)
    raw = json.dumps(body(example.question) | change).encode()
    route = ("POST", "/v1/chat/completions", {}, raw)
    with teacher_server.run_teacher_server(seed=3) as plain, run_teacher_server(seed=3) as faulty:
        (status, own, _), (other_status, other, _) = (
            s.handle_http(*route) for s in (plain, faulty)
        )
    assert status == other_status
    if status == 200:
        counts = ("prompt_tokens", "completion_tokens", "total_tokens")
        assert own["choices"] == other["choices"]
        assert own["usage"] == {name: other["usage"][name] for name in counts}
    else:
        assert own == other
