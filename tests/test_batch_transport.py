"""Purchases in batches: the rows of live requests at half the price, within every limit."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_fakes import (
    RESERVE,
    BatchServerSpy,
    batch_teacher,
    buy_batch,
    buy_until,
    check_clean_exit,  # noqa: F401
    make_other_requests,
    n_open,
)
from bridgekd.api_client.request_key import TeacherRequest, compute_request_key
from bridgekd.cost.budget import Limits
from bridgekd.errors import HardLimitError, TeacherUnavailableError
from bridgekd.ledger.ledger import Ledger
from bridgekd.recipe import Price
from bridgekd.records import Message
from bridgekd.teacher.batch_format import make_custom_id, parse_results, split_into_files
from bridgekd.teacher.buy_answers import buy_answers
from bridgekd.teacher.transport import PendingRequest
from faulty_teacher import BatchFaults, Faults, run_teacher_server
from test_live_transport import counts, held, pool, purchase, words

pytestmark = pytest.mark.usefixtures("check_clean_exit")
HALF = Price(input=1.25, output=5.0)


def test_a_batch_gives_the_rows_of_live_requests_at_half_the_price(tmp_path):
    faults = Faults(truncate=0.2, refuse=0.1)
    with run_teacher_server(words, faults=faults) as server:
        live = purchase(tmp_path / "live.db", server, pool(60), price=HALF)
    with run_teacher_server(words, faults=faults) as server:
        spy = BatchServerSpy(server)
        result = buy_batch(tmp_path / "l.db", server, pool(60), limits=Limits(queries=50))
        assert result.completions == live.completions[:50]
        assert {c.state for c in result.completions} == {"answered", "truncated", "refused"}
        assert (result.stop_reason, result.n_requests_sent, result.n_reused) == ("queries", 50, 0)
        assert result.charged_microusd == result.spent_microusd == held(tmp_path / "l.db")
        assert result.charged_microusd == server.billed
        assert (spy.seen["POST batches"], set(server.calls.values())) == (1, {1})
        warm = buy_batch(tmp_path / "l.db", server, pool(60), limits=Limits(queries=50))
        assert (warm.completions, warm.n_requests_sent) == (result.completions, 0)
        assert spy.seen["POST batches"] == 1


def test_a_live_purchase_reuses_answers_of_a_batch(tmp_path):
    with run_teacher_server(words) as server:
        batch = buy_batch(tmp_path / "l.db", server, pool(9))
        live = purchase(tmp_path / "l.db", server, pool(9))
        assert (live.completions, live.n_requests_sent) == (batch.completions, 0)
        assert live.charged_microusd == server.billed


def take_affordable(rows, limits):
    """Return the prefix that fits, computed request by request from the actual costs."""
    usd = tokens = accepted = 0
    for n, row in enumerate(rows):
        if limits.queries is not None and n + 1 > limits.queries:
            return rows[:n], "queries"
        if limits.microusd is not None and usd + RESERVE > limits.microusd:
            return rows[:n], "usd"
        if limits.tokens is not None and tokens + 128 + 16 + 10 + 182 > limits.tokens:
            return rows[:n], "tokens"
        if limits.accepted is not None and accepted + 1 > limits.accepted:
            return rows[:n], "accepted"
        usd, tokens = usd + row.cost_microusd, tokens + row.n_prompt_tokens
        tokens, accepted = tokens + row.n_completion_tokens, accepted + is_long(row.text)
    return rows, "pool"


def is_long(text):
    return len(text) > 60


ANSWERS = Faults(truncate=0.1, refuse=0.1, no_usage=0.1)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All 40 rows of the pool, purchased live without a limit."""
    with run_teacher_server(words, seed=5, faults=ANSWERS) as server:
        path = tmp_path_factory.mktemp("all") / "l.db"
        return list(purchase(path, server, pool(40), price=HALF).completions)


@given(
    st.builds(
        Limits,
        queries=st.none() | st.integers(1, 50),
        microusd=st.none() | st.integers(0, 12_000),
        tokens=st.none() | st.integers(1, 2500),
        accepted=st.none() | st.integers(1, 12),
    ),
    st.builds(
        BatchFaults,
        expire=st.sampled_from([0, 0.2]),
        error=st.sampled_from([0, 0.2]),
        missing=st.sampled_from([0, 0.2]),
        lose_create=st.integers(0, 1),
        lose_upload=st.integers(0, 1),
    ),
)
@settings(deadline=None, max_examples=12)
def test_a_purchase_is_the_prefix_that_fits_for_all_faults(
    tmp_path_factory, everything, limits, faults
):
    path = tmp_path_factory.mktemp("buy") / "l.db"
    with run_teacher_server(words, seed=5, faults=ANSWERS, batch_faults=faults) as server:
        expected, stop_reason = take_affordable(everything, limits)
        for _ in ("cold", "warm"):
            result = to_the_end(path, server, limits)
            assert (list(result.completions), result.stop_reason) == (expected, stop_reason)
        assert result.charged_microusd == sum(row.cost_microusd for row in expected)
        assert limits.microusd is None or result.charged_microusd <= limits.microusd
        assert server.billed <= held(path)
        assert n_open(path) == 0


def to_the_end(path, server, limits):
    """Stop when lost requests may have cost the full budget; resume with the same command."""
    while True:
        try:
            return buy_batch(
                path,
                server,
                pool(40),
                limits=limits,
                max_attempts=20,
                accept=lambda id, state, text: is_long(text),
            )
        except TeacherUnavailableError as exc:
            assert "more than the full budget" in str(exc)


def waves(rows, limits):
    """Return the number of batches if each holds all that fits after the one before."""
    n = usd = n_waves = 0
    while n < len(rows) and (n_fit := (limits.microusd - usd) // RESERVE) > 0:
        usd += sum(row.cost_microusd for row in rows[n : n + n_fit])
        n, n_waves = n + n_fit, n_waves + 1
    return n_waves


@pytest.mark.parametrize("microusd", [1_200, 5_000, 20_000])
def test_each_batch_holds_all_that_fits(tmp_path, everything, microusd):
    limits = Limits(microusd=microusd)
    with run_teacher_server(words, seed=5, faults=ANSWERS) as server:
        spy = BatchServerSpy(server)
        buy_batch(tmp_path / "l.db", server, pool(40), limits=limits)
        assert spy.seen["POST batches"] == waves(everything, limits)


def test_many_reused_answers_between_new_requests_do_not_split_a_batch(tmp_path):
    recalled = make_other_requests(1) * 300
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)
        buy_batch(tmp_path / "l.db", server, make_other_requests(1))
        buy_batch(tmp_path / "l.db", server, [r for new in pool(4) for r in (new, *recalled)])
        assert spy.seen["POST batches"] == 2


def test_a_slow_disk_does_not_split_a_batch(tmp_path):
    with run_teacher_server(words) as server, Ledger(tmp_path / "l.db") as ledger:
        spy = BatchServerSpy(server)
        ledger._connection("write").set_trace_callback(
            lambda statement: time.sleep(0.05 * (statement == "COMMIT"))
        )
        teacher = batch_teacher(server)
        buy_answers(pool(10), ledger, teacher=teacher, limits=Limits(), run="r", api_key="none")
        assert spy.seen["POST batches"] == 1


@given(st.integers(1_000, 30_000), st.integers(0, 1000))
@settings(deadline=None, max_examples=8)
def test_the_hard_limit_holds_in_batches(tmp_path_factory, stop, seed):
    path = tmp_path_factory.mktemp("stop") / "l.db"
    faults = BatchFaults(expire=0.1, error=0.1, missing=0.15)
    with run_teacher_server(words, seed=seed, batch_faults=faults) as server:
        try:
            buy_batch(path, server, pool(30), stop=stop, max_attempts=20)
            stop_reason = "pool"
        except HardLimitError:
            stop_reason = "stop"
        assert server.billed <= held(path) <= stop
        if stop_reason == "stop":  # because nothing more fits
            assert held(path) + RESERVE > stop
        assert "reserved" not in counts(path)


def test_an_accepted_limit_works_in_waves(tmp_path, everything):
    limits = Limits(queries=40, accepted=6)
    expected, stop_reason = take_affordable(everything, limits)
    with run_teacher_server(words, seed=5, faults=ANSWERS) as server:
        spy = BatchServerSpy(server)
        result = buy_batch(
            tmp_path / "l.db", server, pool(40), limits=limits, accept=lambda i, s, t: is_long(t)
        )
        assert (
            (list(result.completions), result.stop_reason)
            == (expected, stop_reason)
            != (everything, "pool")
        )
        assert stop_reason == "accepted"
        assert spy.seen["POST batches"] > 1


def make_pending(n, text="question"):
    call = {"model": "m", "messages": [{"role": "user", "content": text}], "sample_index": n}
    return PendingRequest(n, TeacherRequest("e", n, ()), call, compute_request_key(call), None)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 9), st.integers(1, 2000))
def test_parts_keep_to_the_limits_and_lose_nothing(sizes, max_lines, max_bytes):
    requests = [make_pending(n, "é" * size) for n, size in enumerate(sizes)]
    files = list(split_into_files(requests, max_lines=max_lines, max_bytes=max_bytes))
    assert [key for file in files for key in file.keys] == [r.key for r in requests]
    for file in files:
        rows = [json.loads(line) for line in file.content.splitlines()]
        assert [row["custom_id"] for row in rows] == [make_custom_id(key) for key in file.keys]
        assert len(rows) <= max_lines
        assert len(file.content) <= max_bytes or len(rows) == 1
        assert all(len(row["custom_id"]) == 64 for row in rows)
        assert all("sample_index" not in row["body"] for row in rows)


def test_many_requests_go_out_in_several_batches(tmp_path):
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)
        stop_reason, scheduler = buy_until(tmp_path / "l.db", server, pool(30), max_requests=7)
        assert (stop_reason, len(scheduler.rows), scheduler.n_sent) == ("pool", 30, 30)
        assert spy.seen["POST batches"] == spy.seen["POST files"] == 5
        assert set(server.served.values()) == {1}
        buy_until(tmp_path / "l2.db", server, pool(30), max_bytes=1500)
        assert 5 < spy.seen["POST batches"] - 5 <= 30


def test_one_of_several_batches_that_fails_leaves_the_others_for_the_next_start(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(batch_s=1.5)) as server:
        spy = BatchServerSpy(server)
        error = 400, {"error": {"message": "too many"}}, {}

        def hook(name, go):
            return error if name == "POST batches" and spy.seen[name] == 2 else go()

        spy.hook = hook
        with pytest.raises(TeacherUnavailableError, match="too many"):
            buy_until(path, server, pool(30), max_requests=10)
        assert counts(path) == {"failed": 10, "reserved": 20}
        result = buy_batch(path, server, pool(30))
        assert (result.n_requests_sent, len(result.completions)) == (10, 30)
        assert (set(server.served.values()), held(path)) == ({1}, server.billed)


def test_thousands_of_requests_are_one_batch(tmp_path):
    requests = [TeacherRequest(f"e{i}", i, (Message("user", f"q{i}"),)) for i in range(2000)]
    with run_teacher_server(lambda question, seed: "Answer: 4") as server:
        spy = BatchServerSpy(server)
        result = buy_batch(tmp_path / "l.db", server, requests)
        assert (len(result.completions), spy.seen["POST batches"]) == (2000, 1)


def test_an_answer_may_hold_any_line_end():
    text = "a\u2028b\u0085c\x0bd"
    body = {"choices": [{"message": {"content": text}}]}
    row = {"custom_id": "k", "response": {"status_code": 200, "body": body}}
    lines = json.dumps(row, ensure_ascii=False) + "\r\n\nno json\n[1]\n"
    (result,) = parse_results(lines)
    assert (result.custom_id, result.status, json.loads(result.body)) == ("k", 200, body)


def test_a_file_without_lines_is_not_taken_for_one_that_is_gone(tmp_path):
    with run_teacher_server(words, batch_faults=BatchFaults(error=0.3)) as server:
        seen = []

        def emptied(name, go):
            if name != "GET content":
                return go()
            text = go()
            rows = [json.loads(line) for line in text.splitlines()]
            seen.append(any(row["response"]["status_code"] != 200 for row in rows))
            return b"" if seen[-1] else text

        BatchServerSpy(server, emptied)
        result = buy_batch(tmp_path / "l.db", server, pool(12))
        assert len(result.completions) == 12 and any(seen)


def test_an_answer_in_one_file_counts_more_than_an_error_in_the_other(tmp_path):
    with run_teacher_server(words) as server:

        def doubled(name, go):
            if name != "GET content":
                return go()
            rows = [json.loads(line) for line in go().splitlines()]
            expired = [row | {"response": None, "error": {"code": "batch_expired"}} for row in rows]
            return "".join(json.dumps(row) + "\n" for row in expired + rows + expired).encode()

        BatchServerSpy(server, doubled)
        result = buy_batch(tmp_path / "l.db", server, pool(5))
        assert (result.n_requests_sent, len(result.completions)) == (5, 5)
