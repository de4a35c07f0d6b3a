"""Purchases at a real loopback server: what is purchased, what it costs, what survives."""

import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.api_client.request_key import (
    TeacherRequest,
    build_request,
    compute_request_key,
    get_payload,
)
from bridgekd.cost.budget import Limits
from bridgekd.errors import HardLimitError, InputError, OverbilledError, TeacherUnavailableError
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.spend import sum_spend
from bridgekd.ledger.verify import verify
from bridgekd.recipe import TeacherOptions
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL, hash_body
from bridgekd.teacher.buy_answers import buy_answers, read_api_key
from faulty_teacher import SANDBOX_PRICE, Faults, run_teacher_server

CANARY = "sk-canary/0123456789-never-shown"
RESERVE = 2205  # of every request below: (128 + 16 + 10 bytes) * 2.5 + 182 * 10, in micro-dollars


def words(question, seed):
    return "so " * (seed % 40) + "Answer: 4"


def pool(n):
    return [TeacherRequest(f"e{i}", i, (Message("user", f"question{i:02}"),)) for i in range(n)]


def teacher_at(server, **more):
    known = {"base_url": server.base_url, "price": SANDBOX_PRICE, "api_key_env": None}
    known |= {
        "max_tokens": 182,
        "timeout_s": 10.0,
        "model": SANDBOX_MODEL,
        "max_concurrent_requests": 8,
    }
    return TeacherOptions(**(known | more))


def purchase(
    path,
    server,
    requests,
    *,
    stop=None,
    key="none",
    limits=None,
    progress=None,
    accept=None,
    **more,
):
    with Ledger(path, hard_limit_microusd=stop) as ledger:
        return buy_answers(
            requests,
            ledger,
            teacher=teacher_at(server, **more),
            limits=limits or Limits(),
            run="r",
            api_key=key,
            backoff_s=0.005,
            accept=accept,
            **({"progress": progress} if progress else {}),
        )


def counts(path):
    return {row.state: row.n_attempts for row in sum_spend(path)}


def held(path):
    return sum(row.reserved_microusd for row in sum_spend(path))


def test_an_answered_request_is_never_paid_twice(tmp_path):
    with run_teacher_server(words) as server:
        cold = purchase(tmp_path / "l.db", server, pool(30))
        warm = purchase(tmp_path / "l.db", server, pool(30))
        assert warm.completions == cold.completions
        assert [c.rank for c in cold.completions] == list(range(30))
        assert (cold.n_requests_sent, cold.n_reused) == (30, 0)
        assert (warm.n_requests_sent, warm.n_reused, warm.spent_microusd) == (0, 30, 0)
        assert warm.charged_microusd == cold.charged_microusd == server.billed
        assert set(server.calls.values()) == {1}
        assert (cold.stop_reason, warm.stop_reason) == ("pool", "pool")


def test_the_same_question_twice_in_one_pool_is_purchased_once(tmp_path):
    requests = [TeacherRequest(f"e{i}", i, (Message("user", "same"),)) for i in range(6)]
    with run_teacher_server(words, faults=Faults(latency_s=0.02)) as server:
        result = purchase(tmp_path / "l.db", server, requests)
        assert server.calls.total() == 1
        assert {c.text for c in result.completions} == {result.completions[0].text}
        assert [c.id for c in result.completions] == [r.id for r in requests]


def test_samples_of_one_question_are_purchased_separately(tmp_path):
    requests = [TeacherRequest("e", i, (Message("user", "same"),), i) for i in range(3)]
    with run_teacher_server(words) as server:
        assert purchase(tmp_path / "l.db", server, requests).n_requests_sent == 3


def take_affordable(server, requests, limits):
    """Return the prefix that fits, computed request by request from the actual costs."""
    usd = tokens = 0
    rows = []
    for n, row in enumerate(requests):
        if limits.queries is not None and n + 1 > limits.queries:
            return rows, "queries"
        if limits.microusd is not None and usd + RESERVE > limits.microusd:
            return rows, "usd"
        if limits.tokens is not None and tokens + 128 + 16 + 10 + 182 > limits.tokens:
            return rows, "tokens"
        usd, tokens = (
            usd + row.cost_microusd,
            tokens + row.n_prompt_tokens + row.n_completion_tokens,
        )
        rows.append(row)
    return rows, "pool"


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All 60 rows of the pool, purchased without a limit."""
    with run_teacher_server(words, seed=5) as server:
        return purchase(tmp_path_factory.mktemp("all") / "l.db", server, pool(60)).completions


@given(
    st.builds(
        Limits,
        queries=st.none() | st.integers(1, 70),
        microusd=st.none() | st.integers(0, 15_000),
        tokens=st.none() | st.integers(1, 2500),
    ),
    st.integers(1, 12),
    st.floats(0, 0.006),
)
@settings(deadline=None, max_examples=20)
def test_a_purchase_is_the_prefix_that_fits_for_all_timings(
    tmp_path_factory, everything, limits, concurrency, latency_s
):
    faults = Faults(
        latency_s=latency_s,
        latency_log_sd=1.5,
        rate_limit=0.05,
        error=0.05,
        drop=0.05,
        retry_after_s=0.001,
    )
    path = tmp_path_factory.mktemp("buy") / "l.db"
    with run_teacher_server(words, seed=5, faults=faults) as server:
        expected, ended = take_affordable(server, everything, limits)
        for _ in ("cold", "warm"):
            result = purchase(
                path, server, pool(60), limits=limits, max_concurrent_requests=concurrency
            )
            assert list(result.completions) == expected
            assert result.stop_reason == ended
        assert result.charged_microusd == sum(row.cost_microusd for row in expected)
        assert limits.microusd is None or result.charged_microusd <= limits.microusd
        assert server.billed <= held(path)


@given(st.integers(2_000, 60_000), st.integers(1, 16), st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_the_hard_limit_holds_under_concurrency_and_faults(
    tmp_path_factory, stop, concurrency, seed
):
    path = tmp_path_factory.mktemp("stop") / "l.db"
    faults = Faults(drop=0.2, error=0.1, rate_limit=0.1, retry_after_s=0.001, latency_s=0.001)
    with run_teacher_server(words, seed=seed, faults=faults) as server:
        try:
            purchase(
                path,
                server,
                pool(40),
                stop=stop,
                max_concurrent_requests=concurrency,
                max_attempts=20,
            )
            ended = "pool"
        except HardLimitError:
            ended = "stop"
        assert server.billed <= held(path) <= stop
        if ended == "stop":  # because nothing more fits
            assert held(path) + RESERVE > stop
        assert "reserved" not in counts(path)


def test_a_request_that_does_not_fit_the_hard_limit_waits_for_open_ones(tmp_path):
    with run_teacher_server(words, faults=Faults(latency_s=0.003)) as server:
        total = purchase(tmp_path / "all.db", server, pool(40)).charged_microusd
        result = purchase(tmp_path / "l.db", server, pool(40), stop=total + RESERVE)
        assert len(result.completions) == 40


CHILD = """
import signal
import sys
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.ledger.ledger import Ledger
from bridgekd.cost.budget import Limits
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.teacher.buy_answers import buy_answers
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
path, base_url, timeout_s = sys.argv[1:]
teacher = TeacherOptions(model=SANDBOX_MODEL, base_url=base_url, api_key_env=None,
                         price=Price(input=2.5, output=10.0),
                  max_tokens=182, max_concurrent_requests=8, timeout_s=float(timeout_s))
requests = [TeacherRequest(f"e{i}", i, (Message("user", f"question{i:02}"),)) for i in range(60)]
with Ledger(path) as ledger:
    try:
        buy_answers(requests, ledger, teacher=teacher, limits=Limits(microusd=10_000), run="r",
            api_key="none", backoff_s=0.005)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def purchase_in_child_until(server, path, n_served, kill_signal, timeout_s=10.0):
    """Purchase in a child process and send it a signal when the server has billed n requests."""
    arguments = [sys.executable, "-W", "error", "-c", CHILD, str(path), server.base_url]
    with subprocess.Popen([*arguments, str(timeout_s)], stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 30
        while server.served.total() < n_served and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        child.send_signal(kill_signal)
        return child.wait(30), child.stderr.read().decode()


def count_answered_requests(path, server):
    """Return how often the server saw each request that has an answer in the ledger."""
    with Ledger(path) as ledger:
        calls = [build_request(teacher_at(server), request) for request in pool(60)]
        return {
            key: server.calls[hash_body(get_payload(call))]
            for call in calls
            if ledger.find_answer(key := compute_request_key(call))
        }


@pytest.mark.parametrize("n_served", [1, 9, 25])
def test_a_killed_purchase_ends_with_the_rows_of_an_undisturbed_one(tmp_path, n_served):
    limits = Limits(microusd=10_000)
    faults = Faults(
        latency_s=0.02, latency_log_sd=0.5, rate_limit=0.05, drop=0.08, retry_after_s=0.001
    )
    with run_teacher_server(words, seed=3, faults=faults) as server:
        undisturbed = purchase(tmp_path / "calm.db", server, pool(60), limits=limits)
    with run_teacher_server(words, seed=3, faults=faults) as server:
        path = tmp_path / "l.db"
        assert purchase_in_child_until(server, path, n_served, signal.SIGKILL)[0] == -9
        before = count_answered_requests(path, server)
        died_with_it = counts(path).get("unknown", 0)  # 0 if it was killed between two answers
        again = purchase(path, server, pool(60), limits=limits)
        after = count_answered_requests(path, server)
        assert again.completions == undisturbed.completions
        assert (again.stop_reason, again.charged_microusd) == ("usd", undisturbed.charged_microusd)
        assert {key: after[key] for key in before} == before
        assert again.n_reused == len(before)
        assert counts(path).get("unknown", 0) >= died_with_it
        answered = sum(row.reserved_microusd for row in sum_spend(path) if row.state != "unknown")
        assert answered == again.charged_microusd
        assert held(path) == answered + RESERVE * counts(path).get("unknown", 0)
        assert server.billed <= held(path)


def test_an_interrupt_records_the_answers_in_flight(tmp_path):
    with run_teacher_server(words, faults=Faults(latency_s=0.3)) as server:
        code, errors = purchase_in_child_until(server, tmp_path / "l.db", 4, signal.SIGINT)
        assert (code, errors) == (130, "")
        found = counts(tmp_path / "l.db")
        assert found["answered"] == server.served.total() >= 4
        assert set(found) <= {"answered", "failed"}


def test_an_interrupt_does_not_wait_for_a_silent_server(tmp_path):
    with run_teacher_server(words, faults=Faults(silence=1.0)) as server:
        code, errors = purchase_in_child_until(server, tmp_path / "l.db", 4, signal.SIGINT, 1.0)
        assert (code, errors) == (130, "")
        assert counts(tmp_path / "l.db")["unknown"] >= 4


def test_an_exhausted_quota_stops_at_once_and_the_purchase_resumes(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, faults=Faults(quota_after=10)) as server:
        with pytest.raises(
            TeacherUnavailableError, match=r"quota or credit is used up.*saved.*run the same"
        ):
            purchase(path, server, pool(40), max_concurrent_requests=4)
        assert server.served.total() == counts(path)["answered"] == 10
        assert server.calls.total() <= 10 + 4 + 1
        assert held(path) == server.billed
    with run_teacher_server(words) as server:
        again = purchase(path, server, pool(40))
        assert (again.n_reused, again.n_requests_sent) == (10, 30)


def test_a_refused_key_and_an_unknown_model_stop_at_the_first_requests(tmp_path):
    with (
        run_teacher_server(words, api_key="right") as server,
        pytest.raises(TeacherUnavailableError, match="401"),
    ):
        purchase(tmp_path / "l.db", server, pool(40), key="wrong-wrong")
    assert server.calls.total() == 0
    with (
        run_teacher_server(words) as server,
        pytest.raises(TeacherUnavailableError, match=r"no model 'other'"),
    ):
        purchase(tmp_path / "l.db", server, pool(40), model="other")
    assert (held(tmp_path / "l.db"), set(counts(tmp_path / "l.db"))) == (0, {"failed"})


def test_a_setting_that_the_server_does_not_take_costs_no_rows(tmp_path):
    error = {"message": "Use 'max_completion_tokens'.", "code": "unsupported_parameter"}
    with run_teacher_server(words) as server:
        server.complete = lambda body, authorization: (400, {"error": error}, {})
        with pytest.raises(TeacherUnavailableError, match="max_completion_tokens"):
            purchase(tmp_path / "l.db", server, pool(40))
        assert set(counts(tmp_path / "l.db")) == {"failed"}


def test_a_server_that_refuses_everything_does_not_use_up_the_pool(tmp_path):
    with run_teacher_server(words, faults=Faults(refuse=1.0)) as server:
        with pytest.raises(TeacherUnavailableError, match=r"refused the first \d+ requests"):
            purchase(tmp_path / "l.db", server, pool(60), max_concurrent_requests=2)
        assert server.calls.total() <= 11  # 8, and those admitted meanwhile


def test_a_ledger_of_answers_without_usage_is_verified_with_extra_fields(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, faults=Faults(no_usage=1.0)) as server:
        extra = {"metadata": {"team": "x" * 100}}
        assert purchase(path, server, pool(3), extra=extra).completions
    assert verify(path).errors == ()


def test_a_server_that_starts_to_refuse_everything_does_not_use_up_the_pool(tmp_path):
    def until_the_limit(question, seed):
        if question > "question105":
            raise ValueError("no more for you today")
        return "Answer: 4"

    path, every = tmp_path / "l.db", pool(200)
    with run_teacher_server(until_the_limit) as server:
        with pytest.raises(TeacherUnavailableError, match=r"refused the last \d+ requests"):
            purchase(path, server, every, max_concurrent_requests=2)
        assert counts(path)["answered"] > 0
        assert counts(path)["refused"] <= 30  # 25, and those admitted meanwhile
        with pytest.raises(
            TeacherUnavailableError, match="refused the last"
        ):  # it goes on behind them
            purchase(path, server, every, max_concurrent_requests=2)
        assert set(server.calls.values()) == {1}


def test_answers_that_broke_on_the_way_stop_once_they_may_have_cost_the_budget(tmp_path):
    path = tmp_path / "l.db"
    broken = {"error": {"message": "upstream died", "code": 502}, "choices": []}
    with run_teacher_server(words) as server:
        server.complete = lambda body, key: (200, broken, {})
        with pytest.raises(TeacherUnavailableError, match="more than the full budget"):
            limits = Limits(microusd=4 * RESERVE)
            purchase(
                path, server, pool(40), limits=limits, max_concurrent_requests=4, max_attempts=20
            )
        assert held(path) <= (4 + 1 + 4) * RESERVE


def test_a_teacher_that_never_answers_ends_with_its_requests_reserved(tmp_path):
    with run_teacher_server(words, faults=Faults(silence=1.0)) as server:
        with pytest.raises(TeacherUnavailableError, match=r"gave no answer .* in 2 attempts "):
            purchase(tmp_path / "l.db", server, pool(20), timeout_s=0.5, max_attempts=2)
        assert set(counts(tmp_path / "l.db")) <= {"unknown", "failed"}
        assert server.billed <= held(tmp_path / "l.db")


def test_a_server_that_is_not_there_costs_nothing(tmp_path):
    with run_teacher_server(words) as server:
        pass
    with pytest.raises(TeacherUnavailableError, match="ConnectError"):
        purchase(tmp_path / "l.db", server, pool(3), max_attempts=2)
    assert (held(tmp_path / "l.db"), set(counts(tmp_path / "l.db"))) == (0, {"failed"})


def test_an_answer_that_is_no_chat_completion_is_kept_and_stops(tmp_path):
    with run_teacher_server(words) as server:
        server.complete = lambda body, authorization: (200, {"hello": "there"}, {})
        with pytest.raises(TeacherUnavailableError, match=r"hello.*check teacher.base_url"):
            purchase(tmp_path / "l.db", server, pool(1))
    assert counts(tmp_path / "l.db") == {"unparsable": 1}
    assert held(tmp_path / "l.db") == RESERVE


def test_overbilling_is_caught_at_the_first_such_answer(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, faults=Faults(overbill=1.0)) as server:
        with pytest.raises(OverbilledError, match="no limit can be kept"):
            purchase(
                path, server, pool(60), max_concurrent_requests=1, limits=Limits(microusd=10_000)
            )
        assert server.calls.total() == counts(path)["answered"] == 1
        assert held(path) == server.billed


def test_overbilling_in_tokens_is_caught_where_tokens_are_limited(tmp_path):
    free = {"input": 0, "output": 0}
    with run_teacher_server(words, faults=Faults(overbill=1.0)) as server:
        with pytest.raises(OverbilledError, match="tokens"):
            purchase(tmp_path / "l.db", server, pool(9), price=free, limits=Limits(tokens=10**9))
        assert len(purchase(tmp_path / "l2.db", server, pool(9), price=free).completions) == 9


def test_refused_and_truncated_answers_are_rows_and_are_never_sent_again(tmp_path):
    with run_teacher_server(words, faults=Faults(refuse=0.3, truncate=0.3)) as server:
        first = purchase(tmp_path / "l.db", server, pool(40))
        again = purchase(tmp_path / "l.db", server, pool(40))
        assert {c.state for c in first.completions} == {"answered", "truncated", "refused"}
        assert again.completions == first.completions
        assert server.calls.total() == len(first.completions) == 40
        assert all(c.cost_microusd == 0 for c in first.completions if c.state == "refused")
        assert all(c.cost_microusd > 0 for c in first.completions if c.state == "truncated")


def test_an_answer_without_usage_is_charged_its_reserve(tmp_path):
    with run_teacher_server(words, faults=Faults(no_usage=1.0)) as server:
        result = purchase(tmp_path / "l.db", server, pool(3), limits=Limits(microusd=2 * RESERVE))
        assert [c.cost_microusd for c in result.completions] == [RESERVE, RESERVE]
        assert (result.stop_reason, result.charged_tokens) == ("usd", 2 * (154 + 182))


def test_retry_after_is_respected(tmp_path):
    with run_teacher_server(words) as server:
        answer = server.complete
        limit = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        script = [(429, limit, {"Retry-After": "0.4"})]
        server.complete = lambda *a: script.pop() if script else answer(*a)
        result = purchase(tmp_path / "l.db", server, pool(1))
        assert (result.n_requests_sent, len(result.completions)) == (2, 1)
        assert 0.4 <= result.seconds < 5
        script.append((429, limit, {"Retry-After": "86400"}))
        with pytest.raises(TeacherUnavailableError, match="asks to wait 86400 s"):
            purchase(tmp_path / "l2.db", server, pool(1))


def test_dollars_cannot_be_limited_without_a_price(tmp_path):
    with run_teacher_server(words) as server:
        for more in ({"limits": Limits(microusd=5)}, {"stop": 5}):
            with pytest.raises(InputError, match=r"price of sandbox-teacher is unknown"):
                purchase(tmp_path / "l.db", server, pool(3), price=None, **more)
        assert server.calls.total() == 0
        free = purchase(tmp_path / "l.db", server, pool(3), price=None, limits=Limits(queries=2))
        assert (free.stop_reason, free.charged_microusd, len(free.completions)) == ("queries", 0, 2)


def test_progress_counts_rows_up_to_the_limit(tmp_path):
    seen = []
    with run_teacher_server(words) as server:
        purchase(
            tmp_path / "l.db",
            server,
            pool(9),
            limits=Limits(queries=5),
            progress=lambda *a: seen.append(a),
        )
    assert seen == [("teacher", n, 5) for n in range(6)]


def test_progress_ends_where_the_budget_ends(tmp_path):
    seen = []
    with run_teacher_server(words) as server:
        purchase(
            tmp_path / "l.db",
            server,
            pool(60),
            limits=Limits(microusd=2 * RESERVE),
            progress=lambda *a: seen.append(a),
        )
    n = len(seen) - 2
    assert 0 < n < 60
    assert seen == [("teacher", k, 60) for k in range(n + 1)] + [("teacher", n, n)]


def test_the_key_comes_from_the_environment(monkeypatch):
    teacher = TeacherOptions(model="m", api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", " sk-1\n")
    assert read_api_key(teacher) == "sk-1"
    for bad in ("", "  ", "sk-\u20ac", "sk\n1"):
        monkeypatch.setenv("SOME_KEY", bad)
        with pytest.raises(InputError, match="SOME_KEY") as caught:
            read_api_key(teacher)
        assert not bad.strip() or bad not in str(caught.value)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(InputError, match="SOME_KEY"):
        read_api_key(teacher)
    assert read_api_key(teacher.model_copy(update={"api_key_env": None})) == "none"


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 418, 429, 500])
def test_the_key_reaches_nothing_that_stays(tmp_path, caplog, status):
    """The server repeats the key in the body, the headers and the error."""
    caplog.set_level(logging.DEBUG)

    def echo(body, authorization):
        text = f"you sent {authorization} !"
        if status != 200:
            return status, {"error": {"message": text, "code": text}}, {"x-request-id": text}
        message = {"role": "assistant", "content": text}
        return 200, {"choices": [{"message": message}]}, {"x-request-id": text}

    shown = []
    with run_teacher_server(words) as server:
        server.complete = echo
        try:
            shown.append(
                repr(purchase(tmp_path / "l.db", server, pool(9), key=CANARY, max_attempts=2))
            )
        except TeacherUnavailableError as exc:
            shown += [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
            assert exc.__cause__ is None
            assert exc.__context__ is None
    shown += [record.getMessage() for record in caplog.records]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert CANARY not in "".join(shown)
    assert CANARY.encode() not in stored
    assert CANARY.replace("/", "\\/").encode() not in stored


def test_accepted_answers_end_the_purchase_at_a_rank_that_no_timing_changes(tmp_path):
    """The purchase ends at the same rank for every timing, and with a warm ledger."""
    passes = [n % 3 == 0 for n in range(60)]

    def accept(id, state, text):
        return state == "answered" and passes[int(id[1:])]

    for name, concurrency, latency_s in (("a", 1, 0.0), ("b", 8, 0.005), ("c", 16, 0.01)):
        with run_teacher_server(
            words, faults=Faults(latency_s=latency_s, latency_log_sd=1.5)
        ) as server:
            for _ in ("cold", "warm"):
                result = purchase(
                    tmp_path / f"{name}.db",
                    server,
                    pool(60),
                    limits=Limits(accepted=5, queries=50),
                    max_concurrent_requests=concurrency,
                    accept=accept,
                )
                assert [c.rank for c in result.completions] == list(range(13))
                assert result.stop_reason == "accepted"
            assert server.calls.total() == 13


def test_the_budget_ends_the_search_for_accepted_answers(tmp_path):
    with run_teacher_server(words) as server:
        result = purchase(
            tmp_path / "l.db",
            server,
            pool(30),
            limits=Limits(accepted=5, queries=7),
            accept=lambda id, state, text: False,
        )
    assert (len(result.completions), result.stop_reason) == (7, "queries")


def test_a_reasoning_model_gets_its_own_fields_and_bills_reasoning_tokens(tmp_path):
    with run_teacher_server(words, reasoning=True) as server:
        with pytest.raises(TeacherUnavailableError, match="a setting of the recipe"):
            purchase(tmp_path / "wrong.db", server, pool(3))
        right = {"max_tokens_field": "max_completion_tokens", "temperature": None}
        result = purchase(tmp_path / "l.db", server, pool(9), **right)
        assert all(c.reasoning for c in result.completions)
        assert result.charged_microusd == server.billed
    reasoning = sum(row[0] for row in rows_of(tmp_path / "l.db", "n_reasoning_tokens"))
    assert 0 < reasoning < sum(c.n_completion_tokens for c in result.completions)


@pytest.mark.parametrize("style", ["openai", "gemini", "anthropic", "deepseek"])
def test_the_cost_is_correct_in_every_style_of_usage(tmp_path, style):
    with run_teacher_server(words, reasoning=True, usage_style=style) as server:
        right = {"max_tokens_field": "max_completion_tokens", "temperature": None}
        result = purchase(tmp_path / "l.db", server, pool(9), **right)
        assert result.charged_microusd == server.billed


def test_an_error_inside_status_200_is_sent_again(tmp_path):
    with run_teacher_server(words) as server:
        true, n_broken = server.complete, []

        def complete(body, authorization):
            if len(n_broken) < 2:
                n_broken.append(1)
                choice = {"message": {"role": "assistant", "content": "so"}}
                return 200, {"choices": [choice | {"finish_reason": "error"}]}, {}
            return true(body, authorization)

        server.complete = complete
        result = purchase(tmp_path / "l.db", server, pool(5))
    assert len(result.completions) == 5
    assert counts(tmp_path / "l.db") == {"answered": 5, "unparsable": 2}
    assert held(tmp_path / "l.db") == result.charged_microusd + 2 * RESERVE


def test_the_limits_per_minute_hold_and_are_used(tmp_path):
    arrivals = []

    def timed(question, seed):
        arrivals.append(time.monotonic())
        return "Answer: 4"

    with run_teacher_server(timed) as server:
        started = time.monotonic()
        purchase(tmp_path / "l.db", server, pool(24), max_requests_per_minute=1200)
        assert 0.15 < time.monotonic() - started < 10
        for i, first in enumerate(arrivals):  # 20 per second, and a burst of one second
            assert sum(first <= t < first + 0.5 for t in arrivals[i:]) <= 10 + 20
        started = time.monotonic()
        tokens = 60 * 5 * 336.0  # five requests per second at their maximum size
        purchase(tmp_path / "m.db", server, pool(60), max_tokens_per_minute=tokens)
        assert time.monotonic() - started < 8  # 11 without a refund of unused tokens


def rows_of(path, columns):
    db = sqlite3.connect(path)
    try:
        return db.execute(f"SELECT {columns} FROM attempts ORDER BY id").fetchall()
    finally:
        db.close()


@pytest.mark.parametrize("tokens", [10**19, 10**400])
def test_a_huge_cost_is_caught_and_leaves_the_ledger_readable(tmp_path, tokens):
    path = tmp_path / "l.db"
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "cost": 10**400}
    with run_teacher_server(words) as server:
        server.complete = lambda body, key: (
            200, {"choices": [{"message": {"content": "a"}}], "usage": usage}, {}
        )  # fmt: skip
        with pytest.raises(OverbilledError):
            purchase(path, server, pool(20))
        with pytest.raises(
            OverbilledError
        ):  # of answers that were in flight; it opens, all the same
            purchase(path, server, pool(40)[20:])
    assert counts(path)["answered"] >= 2


def test_slow_answers_behind_quick_refusals_are_waited_for(tmp_path):
    def picky(question, seed):
        if question < "question12":
            raise ValueError("not this one")
        time.sleep(0.3)
        return "Answer: 4"

    with run_teacher_server(picky) as server:
        result = purchase(tmp_path / "l.db", server, pool(20), max_concurrent_requests=16)
        assert [c.state for c in result.completions] == ["refused"] * 12 + ["answered"] * 8


def test_requests_without_an_answer_stop_once_they_may_have_cost_the_budget(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, faults=Faults(drop=1.0)) as server:
        with pytest.raises(TeacherUnavailableError, match="more than the full budget"):
            limits = Limits(microusd=4 * RESERVE)
            purchase(
                path, server, pool(40), limits=limits, max_concurrent_requests=4, max_attempts=20
            )
        assert server.billed <= held(path) <= (4 + 1 + 4) * RESERVE


def test_slow_answers_do_not_let_a_rate_limited_request_give_up(tmp_path):
    """The server handles one request at a time; each takes as long as six rejections."""
    lock = threading.Lock()

    with run_teacher_server(words) as server:
        true = server.complete

        def one_by_one(body, authorization):
            if not lock.acquire(blocking=False):
                return 429, {"error": {"message": "slow down", "code": "slow_down"}}, {}
            try:
                time.sleep(0.4)
                return true(body, authorization)
            finally:
                lock.release()

        server.complete = one_by_one
        result = purchase(
            tmp_path / "l.db", server, pool(4), max_concurrent_requests=4, max_attempts=4
        )
    assert len(result.completions) == 4
