"""Buying in batches: the rows of live calls at half the price, whatever happens on the way."""

import gc
import json
import logging
import os
import signal
import sqlite3
import time
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_fakes import PRICE, RESERVE, Watch, batch_teacher, by_hand, child
from bridgekd.config import Price
from bridgekd.core.calls import call_key, call_request, payload_of
from bridgekd.edges.batch_files import custom_id, parts_of, results_of
from bridgekd.edges.ledger import Ledger
from bridgekd.edges.orders import Order
from bridgekd.edges.teacher import Limits, TeacherRequest, buy
from bridgekd.errors import HardStop, Overbilled, TeacherDown
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import BatchFaults, Faults, request_key, serve
from test_teacher import CANARY, counts, held, pool, purchase, words

HALF = Price(input=1.25, output=5.0)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(caplog):
    """No task or future ends with an exception that nobody took."""
    yield
    gc.collect()
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []


def bought(path, server, requests, *, stop=None, limits=None, key="none", note=None, **more):
    asked = {name: more.pop(name) for name in ("accept", "run") if name in more}
    with Ledger(path, hard_stop_microusd=stop) as ledger:
        return buy(
            requests,
            ledger,
            teacher=batch_teacher(server, **more),
            limits=limits or Limits(),
            api_key=key,
            backoff_s=0.05,
            note=note or (lambda text: None),
            **{"run": "r"} | asked,
        )


def others(n):
    return [TeacherRequest(f"o{i}", i, (Message("user", f"another?{i:02}"),)) for i in range(n)]


def n_open(path):
    with Ledger(path) as ledger:
        return len(ledger.open_batches())


def own_calls(server, requests):
    """How often the server saw each of these requests."""
    teacher = batch_teacher(server)
    return [server.calls[request_key(payload_of(call_request(teacher, r)))] for r in requests]


def leave(path, server, watch, requests, stop_at="GET batch", **more):
    """Stops a buying, as Ctrl-C does, and says how long that took."""
    ended, buying = by_hand(path, server, requests, stop_at=stop_at, watch=watch, **more)
    assert (ended, buying.rows) == ("cancelled", {})


# What is bought


def test_a_batch_gives_the_rows_of_live_calls_at_half_the_price(tmp_path):
    faults = Faults(cut=0.2, refuse=0.1)
    with serve(words, faults=faults) as server:
        live = purchase(tmp_path / "live.db", server, pool(60), price=HALF)
    with serve(words, faults=faults) as server:
        watch = Watch(server)
        got = bought(tmp_path / "l.db", server, pool(60), limits=Limits(queries=50))
        assert got.completions == live.completions[:50]
        assert {c.state for c in got.completions} == {"answered", "truncated", "refused"}
        assert (got.ended, got.n_calls_sent, got.n_recalled) == ("queries", 50, 0)
        assert got.charged_microusd == got.spent_microusd == held(tmp_path / "l.db")
        assert got.charged_microusd == server.billed
        assert (watch.seen["POST batches"], set(server.calls.values())) == (1, {1})
        warm = bought(tmp_path / "l.db", server, pool(60), limits=Limits(queries=50))
        assert (warm.completions, warm.n_calls_sent) == (got.completions, 0)
        assert watch.seen["POST batches"] == 1


def test_a_live_buying_recalls_what_a_batch_bought(tmp_path):
    with serve(words) as server:
        batch = bought(tmp_path / "l.db", server, pool(9))
        live = purchase(tmp_path / "l.db", server, pool(9))
        assert (live.completions, live.n_calls_sent) == (batch.completions, 0)
        assert live.charged_microusd == server.billed


def affordable(rows, limits):
    """The prefix that fits, worked out one call after the other from what each does cost."""
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


ANSWERS = Faults(cut=0.1, refuse=0.1, no_usage=0.1)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All 40 rows of the pool, bought one by one without a limit."""
    with serve(words, seed=5, faults=ANSWERS) as server:
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
def test_what_is_bought_is_exactly_what_fits_whatever_the_faults(
    tmp_path_factory, everything, limits, faults
):
    path = tmp_path_factory.mktemp("buy") / "l.db"
    with serve(words, seed=5, faults=ANSWERS, batch_faults=faults) as server:
        expected, ended = affordable(everything, limits)
        for _ in ("cold", "warm"):
            got = bought(
                path,
                server,
                pool(40),
                limits=limits,
                max_tries=20,
                accept=lambda id, state, text: is_long(text),
            )
            assert (list(got.completions), got.ended) == (expected, ended)
        assert got.charged_microusd == sum(row.cost_microusd for row in expected)
        assert limits.microusd is None or got.charged_microusd <= limits.microusd
        assert server.billed <= held(path)
        assert n_open(path) == 0


def waves(rows, limits):
    """How many batches it takes if each holds all that fits while the one before is settled."""
    n = usd = n_waves = 0
    while n < len(rows) and (n_fit := (limits.microusd - usd) // RESERVE) > 0:
        usd += sum(row.cost_microusd for row in rows[n : n + n_fit])
        n, n_waves = n + n_fit, n_waves + 1
    return n_waves


@pytest.mark.parametrize("microusd", [1_200, 5_000, 20_000])
def test_each_batch_holds_all_that_fits(tmp_path, everything, microusd):
    limits = Limits(microusd=microusd)
    with serve(words, seed=5, faults=ANSWERS) as server:
        watch = Watch(server)
        bought(tmp_path / "l.db", server, pool(40), limits=limits)
        assert watch.seen["POST batches"] == waves(everything, limits)


def test_neither_a_slow_disk_nor_a_long_recall_splits_a_batch(tmp_path):
    slow = lambda statement: time.sleep(0.05 * (statement == "COMMIT"))  # noqa: E731
    with serve(words) as server, Ledger(tmp_path / "l.db") as ledger:
        watch = Watch(server)
        terms = {"limits": Limits(), "run": "r", "api_key": "none"}
        recalled = [o for o in others(1) for _ in range(40)]
        buy(recalled, ledger, teacher=batch_teacher(server), **terms)
        ledger._connection("write").set_trace_callback(slow)
        mixed = [r for new in pool(10) for r in (new, *recalled)]
        buy(mixed, ledger, teacher=batch_teacher(server), **terms)
        assert watch.seen["POST batches"] == 2


@given(st.integers(1_000, 30_000), st.integers(0, 1000))
@settings(deadline=None, max_examples=8)
def test_the_hard_stop_holds_in_batches(tmp_path_factory, stop, seed):
    path = tmp_path_factory.mktemp("stop") / "l.db"
    faults = BatchFaults(expire=0.1, error=0.1, missing=0.15)
    with serve(words, seed=seed, batch_faults=faults) as server:
        try:
            bought(path, server, pool(30), stop=stop, max_tries=20)
            ended = "pool"
        except HardStop:
            ended = "stop"
        assert server.billed <= held(path) <= stop
        if ended == "stop":  # it stopped because nothing more fitted
            assert held(path) + RESERVE > stop
        assert "reserved" not in counts(path)


def test_an_accepted_limit_works_in_waves(tmp_path, everything):
    limits = Limits(queries=40, accepted=6)
    expected, ended = affordable(everything, limits)
    with serve(words, seed=5, faults=ANSWERS) as server:
        watch = Watch(server)
        got = bought(
            tmp_path / "l.db", server, pool(40), limits=limits, accept=lambda i, s, t: is_long(t)
        )
        assert (list(got.completions), got.ended) == (expected, ended) != (everything, "pool")
        assert ended == "accepted"
        assert watch.seen["POST batches"] > 1


# Interrupted and gone on with


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    ("name", "when", "left"),
    [
        ("POST files", "before", "failed"),
        ("POST batches", "before", "reserved"),
        ("POST batches", "after", "reserved"),
        ("GET batch", "before", "reserved"),
        ("GET content", "after", "reserved"),
    ],
)
def test_a_killed_buying_ends_with_the_rows_of_an_undisturbed_one(tmp_path, name, when, left, nth):
    faults, limits = BatchFaults(batch_s=0.02), Limits(microusd=3_000)
    with serve(words, seed=3, batch_faults=faults) as server:
        calm = bought(tmp_path / "calm.db", server, pool(60), limits=limits)
    with serve(words, seed=3, batch_faults=faults) as server:
        path = tmp_path / "l.db"

        def hook(asked, go):
            if asked != name or watch.seen["POST files"] != nth:
                return go()
            answer = go() if when == "after" else None
            os.kill(process.pid, signal.SIGKILL)
            return answer

        watch = Watch(server, hook)
        with child(path, server, microusd=3_000) as process:
            assert process.wait(60) == -9, process.stderr.read().decode()
        watch.hook = lambda asked, go: go()
        assert n_open(path) == (left == "reserved")  # as opening the ledger finds it
        assert counts(path).get(left, 0) > 0
        n_done = counts(path).get("answered", 0)
        assert (n_done > 0) == (nth == 2)
        again = bought(path, server, pool(60), limits=limits)
        assert (again.completions, again.ended) == (calm.completions, "usd")
        assert again.charged_microusd == calm.charged_microusd == server.billed
        assert set(server.served.values()) == {1}
        asked_for_nothing = (name, when) == ("POST batches", "before")  # that nobody can know
        n_unknown = counts(path).get("unknown", 0)
        assert (n_unknown > 0) == asked_for_nothing
        assert held(path) == server.billed + RESERVE * n_unknown
        assert n_open(path) == 0


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_buying_killed_at_any_commit_pays_nothing_twice(tmp_path, nth):
    """One batch has about seven: reserved, joined, to be made, named, recorded, settled."""
    path, limits = tmp_path / "l.db", Limits(microusd=12_500)
    with serve(words, seed=3) as server:
        with child(path, server, microusd=12_500, die_at=nth) as process:
            assert process.wait(60) == -9, process.stderr.read().decode()
        got = bought(path, server, pool(60), limits=limits)
        assert len(got.completions) == 60
        assert set(server.served.values()) == {1}
        unmade = RESERVE * counts(path).get("unknown", 0)  # reserved, or not seen to be made
        assert got.charged_microusd == server.billed == held(path) - unmade
        assert (n_open(path), "reserved" in counts(path)) == (0, False)


def test_an_interrupt_leaves_the_batch_and_the_next_start_takes_it(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(batch_s=2.5)) as server:
        watch = Watch(server)
        with child(path, server, microusd=20_000) as process:
            watch.wait_for("GET batch")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert (process.wait(20), process.stderr.read()) == (130, b"")
            assert time.monotonic() - began < 2
        assert (n_open(path), set(counts(path))) == (1, {"reserved"})
        n_sent, posts = counts(path)["reserved"], watch.seen["POST batches"]
        again = bought(path, server, pool(n_sent))
        assert (again.n_calls_sent, again.n_recalled, len(again.completions)) == (0, 0, n_sent)
        assert watch.seen["POST batches"] == watch.seen["POST files"] == posts == 1
        assert again.spent_microusd == again.charged_microusd == server.billed == held(path)
        assert (n_open(path), set(counts(path))) == (0, {"answered"})


def test_an_interrupt_before_anything_left_costs_nothing(tmp_path):
    path = tmp_path / "l.db"
    with serve(words) as server:
        watch = Watch(server)

        def hook(name, go):
            time.sleep(0.5)  # the upload is under way when the buying is stopped
            return go()

        watch.hook = hook
        leave(path, server, watch, pool(20), stop_at="POST files")
        assert (counts(path), held(path), watch.seen["POST batches"]) == ({"failed": 20}, 0, 0)


def test_what_is_in_no_batch_yet_when_we_stop_costs_nothing(tmp_path):
    path = tmp_path / "l.db"

    def requests():
        """Twenty new ones; once all are reserved and wait for a batch, it breaks."""
        yield from pool(20)
        while counts(path).get("reserved", 0) < 20:
            yield others(1)[0]
        yield from others(1) * 50
        raise RuntimeError("stop")

    with serve(words) as server:
        bought(path, server, others(1))
        watch = Watch(server, lambda name, go: pytest.fail("nothing is to be sent"))
        with pytest.raises(RuntimeError, match="stop"):
            bought(path, server, requests())
        assert counts(path) == {"answered": 1, "failed": 20}
        assert (held(path), watch.seen.total()) == (server.billed, 0)


def test_a_batch_that_is_being_made_when_we_stop_gets_its_name(tmp_path):
    path = tmp_path / "l.db"

    def slowly(name, go):
        answer = go()
        time.sleep(0.4 if name == "POST batches" else 0)
        return answer

    with serve(words) as server:
        watch = Watch(server, slowly)
        leave(path, server, watch, pool(20), stop_at="POST batches")
        with Ledger(path) as ledger:
            assert ledger.open_batches()[0].remote_id.startswith("batch_")
        assert bought(path, server, pool(20)).n_calls_sent == 0
        assert (watch.seen["GET list"], set(server.served.values())) == (0, {1})


def test_what_expired_in_a_batch_that_was_left_is_asked_again(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(expire=0.4)) as server:
        leave(path, server, Watch(server), pool(20))
        got = bought(path, server, pool(20), max_tries=20)
        assert len(got.completions) == 20
        assert got.n_calls_sent == server.calls.total() - 20 > 0
        assert (set(server.served.values()), held(path)) == ({1}, server.billed)


def test_another_buying_keeps_the_answers_of_a_batch_that_was_left(tmp_path):
    path = tmp_path / "l.db"
    faults = BatchFaults(expire=0.2, missing=0.2)
    with serve(words, faults=Faults(refuse=0.2), batch_faults=faults, seed=1) as server:
        watch = Watch(server)
        leave(path, server, watch, pool(30))
        billed = server.billed
        free = Price(input=0, output=0)
        got = bought(path, server, others(12), price=free, run="other", max_tries=20)
        assert (got.n_calls_sent >= 12, len(got.completions), n_open(path)) == (True, 12, 0)
        with sqlite3.connect(path) as db:
            found = dict(
                db.execute(
                    "SELECT state, count(*) FROM attempts WHERE run = 'r' GROUP BY 1"
                ).fetchall()
            )
            paid = db.execute(
                "SELECT sum(cost_microusd) FROM attempts WHERE run = 'r' AND state = 'answered'"
            ).fetchone()[0]
        db.close()
        assert found.keys() == {"answered", "refused", "failed", "unknown"}
        assert sum(found.values()) == 30
        assert paid < billed <= paid + found["unknown"] * RESERVE == held(path)
        again = bought(path, server, pool(30), max_tries=20)
        assert again.n_recalled == found["answered"] + found["refused"]
        assert len(again.completions) == 30
        assert server.billed <= held(path)


def test_what_was_sent_at_another_price_is_charged_that(tmp_path):
    path = tmp_path / "l.db"
    for sent, now in ((PRICE, None), (None, PRICE), (PRICE, Price(input=90, output=90))):
        path.unlink(missing_ok=True)
        with serve(words, faults=Faults(no_usage=0.2)) as server:
            leave(path, server, Watch(server), pool(10), more={"price": sent})
            got = bought(path, server, pool(10), price=now)
            reserved = RESERVE * (sent is not None)
            costs = {c.cost_microusd for c in got.completions}
            assert got.n_calls_sent == 0
            assert got.charged_microusd == held(path)
            assert got.charged_microusd >= server.billed * (sent is not None)
            assert max(costs) == reserved  # of an answer without usage
            assert (min(costs) == 0) == (sent is None)


def test_a_live_buying_does_not_pay_for_what_is_in_a_batch(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(batch_s=60)) as server:
        leave(path, server, Watch(server), pool(10)[5:])
        before = held(path)
        with pytest.raises(TeacherDown, match=r"e5 is in a batch .*transport: batch") as caught:
            purchase(path, server, pool(20))
        assert caught.value.exit_code == 3
        assert set(own_calls(server, pool(20)[5:])) <= {0, 1}  # 1: from within the batch
        assert counts(path)["reserved"] == 5
        assert held(path) == before + server.billed


# What fails


def test_what_expired_or_failed_is_asked_again_in_the_next_batch(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(expire=0.3, error=0.3), seed=2) as server:
        watch = Watch(server)
        got = bought(path, server, pool(60), max_tries=20)
        assert len(got.completions) == 60
        assert watch.seen["POST batches"] == max(server.calls.values()) > 2
        assert set(server.served.values()) == {1}
        assert counts(path) == {"answered": 60, "failed": server.calls.total() - 60}
        assert got.charged_microusd == server.billed == held(path)


def test_an_answer_that_is_missing_stays_held_and_is_asked_again(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(missing=0.3), seed=2) as server:
        got = bought(path, server, pool(40), max_tries=20)
        n_unknown = counts(path)["unknown"]
        assert server.served.total() == 40 + n_unknown > 40
        assert held(path) == got.charged_microusd + RESERVE * n_unknown >= server.billed


@pytest.mark.parametrize(("fault", "state"), [("expire", "failed"), ("missing", "unknown")])
def test_a_batch_that_never_answers_ends_after_max_tries(tmp_path, fault, state):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(**{fault: 1.0})) as server:
        with pytest.raises(TeacherDown, match=r"no answer for example e\d+ in 2 tries"):
            bought(path, server, pool(10), max_tries=2)
        assert counts(path) == {state: 20}
        assert held(path) == 20 * RESERVE * (state == "unknown")


def test_a_batch_that_is_not_taken_stops_with_nothing_held(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, models=("others",)) as server:
        with pytest.raises(TeacherDown, match=r"did not take the batch .*does not exist"):
            bought(path, server, pool(20))
        assert (counts(path), held(path), server.calls.total()) == ({"failed": 20}, 0, 0)
        assert n_open(path) == 0


def test_a_wrong_key_stops_at_the_upload(tmp_path):
    refused = pytest.raises(TeacherDown, match=r"refused a call without a key .401")
    with serve(words, api_key="right") as server, refused:
        bought(tmp_path / "l.db", server, pool(20), key="wrong-wrong")
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


@pytest.mark.parametrize("name", ["POST files", "POST batches"])
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (429, "insufficient_quota", "quota or credit is used up"),
        (400, "invalid_request", "cannot be asked: oh no"),
        (404, "not_found", "no files and batches at this address"),
    ],
)
def test_a_server_that_takes_no_batch_stops_with_nothing_held(tmp_path, name, status, code, said):
    error = status, {"error": {"message": "oh no", "code": code}}, {}
    with serve(words) as server:
        watch = Watch(server, lambda asked, go: error if asked == name else go())
        with pytest.raises(TeacherDown, match=said):
            bought(tmp_path / "l.db", server, pool(20))
        assert watch.seen[name] == 1
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


def test_a_server_that_is_not_there_costs_nothing(tmp_path):
    with serve(words) as server:
        pass
    with pytest.raises(TeacherDown, match="ConnectError"):
        bought(tmp_path / "l.db", server, pool(3), max_tries=2)
    assert (held(tmp_path / "l.db"), counts(tmp_path / "l.db")) == (0, {"failed": 3})


def test_a_setting_that_no_call_may_have_costs_no_rows(tmp_path):
    stopped = pytest.raises(TeacherDown, match="does not take a setting")
    with serve(words, reasoning=True) as server, stopped:  # it takes no max_tokens
        bought(tmp_path / "l.db", server, pool(20), token_parameter="max_tokens")
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


def test_refusals_beside_answers_do_not_look_like_a_rule(tmp_path):
    def picky(question, seed):
        if question < "question10":
            raise ValueError("not this one")
        return "Answer: 4"

    with serve(picky) as server:
        got = bought(tmp_path / "l.db", server, pool(20))
        assert [c.state for c in got.completions] == ["refused"] * 10 + ["answered"] * 10
    with serve(picky) as server, pytest.raises(TeacherDown, match="refused the first 8 requests"):
        bought(tmp_path / "l2.db", server, pool(10))


def test_overbilling_is_caught_with_all_of_the_batch_saved(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, faults=Faults(overbill=1.0, refuse=0.3)) as server:
        with pytest.raises(Overbilled, match="no limit can be kept"):
            bought(path, server, pool(20))
        assert counts(path) == {"answered": server.served.total(), "refused": 7}
        assert (held(path), n_open(path)) == (server.billed, 0)


def test_an_answer_that_is_no_chat_completion_stops_with_the_others_saved(tmp_path):
    path, spoilt = tmp_path / "l.db", []

    def hook(name, go):
        if name != "GET content":
            return go()
        rows = [json.loads(line) for line in go().splitlines()]
        rows[3]["response"]["body"] = spoilt.append(1) or {"hello": "there"}
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    with serve(words) as server:
        Watch(server, hook)
        with pytest.raises(TeacherDown, match=r"hello.*check teacher.base_url"):
            bought(path, server, pool(20))
        assert (counts(path), n_open(path)) == ({"answered": 19, "unparsable": 1}, 0)
        assert server.billed <= held(path)


@pytest.mark.parametrize("garbage", [b"<html>", (200, {}, {}), (200, {"id": 5, "data": 5}, {})])
@pytest.mark.parametrize("name", ["POST batches", "GET batch", "GET list"])
def test_an_answer_that_is_no_batch_is_asked_for_again(tmp_path, name, garbage):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(lose_create=int(name == "GET list"))) as server:
        watch = Watch(server)
        watch.hook = lambda asked, go: garbage if asked == name and watch.seen[name] == 1 else go()
        assert len(bought(path, server, pool(20)).completions) == 20
        n_unknown = 20 * (name == "POST batches")  # nobody knows whether that made one
        assert counts(path) == {"answered": 20} | ({"unknown": 20} if n_unknown else {})
        assert (held(path), n_open(path)) == (server.billed + RESERVE * n_unknown, 0)


def test_a_server_that_keeps_no_files_is_told_apart(tmp_path):
    with serve(words) as server:
        Watch(server, lambda name, go: b"<html>")
        with pytest.raises(TeacherDown, match="no files and batches at this address"):
            bought(tmp_path / "l.db", server, pool(20))


def test_a_wait_that_the_server_asks_for_is_kept_unless_it_is_long(tmp_path):
    with serve(words) as server:
        watch = Watch(server)
        error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        watch.hook = lambda name, go: (
            (429, error, {"Retry-After": "0.4"}) if watch.seen[name] == 1 else go()
        )
        got = bought(tmp_path / "l.db", server, pool(3))
        assert (got.n_calls_sent, len(got.completions)) == (3, 3)
        assert 1.6 <= got.seconds < 20  # upload, making, a look, the results
        watch.hook = lambda name, go: (429, error, {"Retry-After": "86400"})
        with pytest.raises(TeacherDown, match="86400 s of rest"):
            bought(tmp_path / "l2.db", server, pool(3))


@pytest.mark.parametrize("name", ["GET batch", "GET content"])
def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path, name):
    path, n_failed = tmp_path / "l.db", 0
    broken = 503, {"error": {"message": "down"}}, {}

    def away(asked, go):
        nonlocal n_failed
        if asked != name or n_failed >= n_most:
            return go()
        n_failed += 1
        return None if n_failed % 2 else broken

    with serve(words) as server:
        Watch(server, away)
        n_most = 5
        assert len(bought(path, server, pool(20)).completions) == 20
        n_most = 10**9
        with pytest.raises(TeacherDown, match=r"goes on without us: run the same command again"):
            bought(path, server, others(20))
        assert counts(path) == {"answered": 20, "reserved": 20}
        n_most = 0
        again = bought(path, server, others(20))
        assert (again.n_calls_sent, len(again.completions)) == (0, 20)
        assert (held(path), set(server.served.values())) == (server.billed, {1})


def test_a_batch_that_cannot_be_reached_does_not_stop_who_does_not_want_it(tmp_path):
    path, notes, unknown = tmp_path / "l.db", [], (404, {"error": {"message": "no"}}, {})
    with serve(words) as server:
        watch = Watch(server)
        leave(path, server, watch, pool(5))
        n_looks = watch.seen["GET batch"]

        def hook(name, go):
            return unknown if name == "GET batch" and watch.seen[name] == n_looks + 1 else go()

        watch.hook = hook
        assert len(bought(path, server, others(5), note=notes.append).completions) == 5
        assert "knows no batch" in "".join(notes)
        assert counts(path) == {"answered": 5, "reserved": 5}


def test_a_batch_that_the_server_does_not_know_is_lost_after_two_days(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(batch_s=30)) as server:
        leave(path, server, Watch(server), pool(5))
    with serve(words) as server:
        said = r"knows no batch batch_\w+, of 5 calls; use the key and the base_url"
        with pytest.raises(TeacherDown, match=said):
            bought(path, server, pool(5))
        assert (server.calls.total(), counts(path)) == (0, {"reserved": 5})
        with sqlite3.connect(path) as db:
            db.execute("UPDATE batches SET created_at = '2020-01-01T00:00:00.000+00:00'")
        db.close()
        assert len(bought(path, server, pool(5)).completions) == 5
        assert counts(path) == {"answered": 5, "unknown": 5}
        assert held(path) == server.billed + 5 * RESERVE


def test_a_file_that_the_server_has_no_more_leaves_its_calls_held(tmp_path):
    path, gone = tmp_path / "l.db", (404, {"error": {"message": "gone"}}, {})
    with serve(words) as server:
        watch = Watch(server)
        watch.hook = lambda name, go: (
            gone if name == "GET content" and watch.seen[name] == 1 else go()
        )
        assert len(bought(path, server, pool(5)).completions) == 5
        assert counts(path) == {"answered": 5, "unknown": 5}


# A batch whose making nobody saw


def test_a_batch_whose_making_was_not_answered_is_found_by_its_token(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(lose_create=1, lose_upload=1)) as server:
        watch = Watch(server)
        got = bought(path, server, pool(20))
        assert (len(got.completions), watch.seen["POST batches"]) == (20, 1)
        assert (server.billed, set(server.served.values())) == (held(path), {1})


def test_a_list_that_lags_is_looked_at_again(tmp_path):
    empty = 200, {"object": "list", "data": [], "has_more": False}, {}
    with serve(words, batch_faults=BatchFaults(lose_create=1)) as server:
        watch = Watch(server)
        watch.hook = lambda name, go: empty if name == "GET list" and watch.seen[name] < 4 else go()
        assert len(bought(tmp_path / "l.db", server, pool(20)).completions) == 20
        assert (watch.seen["POST batches"], set(server.served.values())) == (1, {1})


def test_a_batch_that_is_never_listed_stays_held_and_its_calls_are_asked_again(tmp_path):
    path, empty = tmp_path / "l.db", (200, {"object": "list", "data": [], "has_more": False}, {})
    with serve(words, batch_faults=BatchFaults(lose_create=1)) as server:
        Watch(server, lambda name, go: empty if name == "GET list" else go())
        assert len(bought(path, server, pool(20)).completions) == 20
        assert counts(path) == {"answered": 20, "unknown": 20}
        assert server.billed <= held(path)


@pytest.mark.parametrize("made", [True, False])
def test_a_failure_while_making_a_batch_makes_no_second_one(tmp_path, made):
    broken = 500, {"error": {"message": "oh no"}}, {}
    with serve(words) as server:
        watch = Watch(server)

        def hook(name, go):
            if name != "POST batches" or watch.seen[name] > 1:
                return go()
            if made:
                go()
            return broken

        watch.hook = hook
        assert len(bought(tmp_path / "l.db", server, pool(20)).completions) == 20
        assert (watch.seen["POST batches"], set(server.served.values())) == (2 - made, {1})
        assert counts(tmp_path / "l.db") == {"answered": 20}


def test_a_list_of_many_batches_is_read_to_its_end(tmp_path):
    pages = []

    def one_by_one(name, go):
        """Another's batch on the first page, ours on the second."""
        if name == "GET next":
            return pages[0]
        if name == "GET list":
            pages.append(go())
            others = [{"id": "batch_other", "status": "completed", "metadata": None}]
            return 200, {"data": others, "has_more": True}, {}
        return go()

    with serve(words, batch_faults=BatchFaults(lose_create=1)) as server:
        watch = Watch(server, one_by_one)
        bought(tmp_path / "l.db", server, pool(5))
        assert (watch.seen["GET list"], watch.seen["POST batches"]) == (1, 1)


# Files


def order(n, text="question"):
    call = {"model": "m", "messages": [{"role": "user", "content": text}], "sample_index": n}
    return Order(n, TeacherRequest("e", n, ()), call, call_key(call), None)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 9), st.integers(1, 2000))
def test_parts_keep_to_the_limits_and_lose_nothing(sizes, most_lines, most_bytes):
    orders = [order(n, "é" * size) for n, size in enumerate(sizes)]
    parts = list(parts_of(orders, most_lines=most_lines, most_bytes=most_bytes))
    assert [key for part in parts for key in part.keys] == [o.key for o in orders]
    for part in parts:
        rows = [json.loads(line) for line in part.content.splitlines()]
        assert [row["custom_id"] for row in rows] == [custom_id(key) for key in part.keys]
        assert len(rows) <= most_lines
        assert len(part.content) <= most_bytes or len(rows) == 1
        assert all(len(row["custom_id"]) == 64 for row in rows)
        assert all("sample_index" not in row["body"] for row in rows)


def test_many_calls_go_out_in_several_batches(tmp_path):
    with serve(words) as server:
        watch = Watch(server)
        ended, buying = by_hand(tmp_path / "l.db", server, pool(30), most_lines=7)
        assert (ended, len(buying.rows), buying.n_sent) == ("pool", 30, 30)
        assert watch.seen["POST batches"] == watch.seen["POST files"] == 5
        assert set(server.served.values()) == {1}
        by_hand(tmp_path / "l2.db", server, pool(30), most_bytes=1500)
        assert 5 < watch.seen["POST batches"] - 5 <= 30


def test_one_of_several_batches_that_fails_leaves_the_others_for_the_next_start(tmp_path):
    path = tmp_path / "l.db"
    with serve(words, batch_faults=BatchFaults(batch_s=0.3)) as server:
        watch = Watch(server)
        error = 400, {"error": {"message": "too many"}}, {}

        def hook(name, go):
            return error if name == "POST batches" and watch.seen[name] == 2 else go()

        watch.hook = hook
        with pytest.raises(TeacherDown, match="too many"):
            by_hand(path, server, pool(30), most_lines=10)
        assert counts(path) == {"failed": 10, "reserved": 20}
        got = bought(path, server, pool(30))
        assert (got.n_calls_sent, len(got.completions)) == (10, 30)
        assert (set(server.served.values()), held(path)) == ({1}, server.billed)


def test_five_thousand_calls_are_a_matter_of_seconds(tmp_path):
    requests = [TeacherRequest(f"e{i}", i, (Message("user", f"q{i}"),)) for i in range(5000)]
    with serve(lambda question, seed: "Answer: 4") as server:
        watch = Watch(server)
        got = bought(tmp_path / "l.db", server, requests)
        assert (len(got.completions), watch.seen["POST batches"]) == (5000, 1)
        assert got.seconds < 60


def test_an_answer_may_hold_any_line_end():
    text = "a\u2028b\u0085c\x0bd"
    body = {"choices": [{"message": {"content": text}}]}
    row = {"custom_id": "k", "response": {"status_code": 200, "body": body}}
    lines = json.dumps(row, ensure_ascii=False) + "\r\n\nno json\n[1]\n"
    (result,) = results_of(lines)
    assert (result.custom_id, result.status, json.loads(result.body)) == ("k", 200, body)


def test_an_answer_in_one_file_counts_more_than_an_error_in_the_other(tmp_path):
    with serve(words) as server:

        def doubled(name, go):
            if name != "GET content":
                return go()
            rows = [json.loads(line) for line in go().splitlines()]
            expired = [row | {"response": None, "error": {"code": "batch_expired"}} for row in rows]
            return "".join(json.dumps(row) + "\n" for row in expired + rows + expired).encode()

        Watch(server, doubled)
        got = bought(tmp_path / "l.db", server, pool(5))
        assert (got.n_calls_sent, len(got.completions)) == (5, 5)


# Secrets


def echo(name, go):
    """What `go` gives, with the key wherever there is a text of the server's own."""
    answer = go()
    if isinstance(answer, bytes):
        rows = [json.loads(line) for line in answer.splitlines()]
        for row in rows:
            row["response"]["request_id"] = CANARY
            row["response"]["body"]["choices"][0]["message"]["content"] += CANARY
        text = "".join(json.dumps(row) + "\n" for row in rows)
        return text.replace(CANARY, "\\u0073" + CANARY[1:]).encode()  # JSON may spell it so
    if answer is not None and "status" in answer[1]:
        errors = {"data": [{"message": f"you sent {CANARY}", "code": CANARY}]}
        return answer[0], {**answer[1], "errors": errors}, answer[2]
    return answer


@pytest.mark.parametrize("status", [0, 200, 400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batch", "GET content"])
def test_the_key_reaches_nothing_that_stays(tmp_path, caplog, name, status):
    """A server that repeats the key: in an error of this status, or where all goes well (200)
    and where the batch as a whole fails (0).
    """
    caplog.set_level(logging.DEBUG)
    shown = []

    def hook(asked, go):
        if asked == name and status >= 400:
            said = f"you sent {CANARY} !"
            return status, {"error": {"message": said, "code": said}}, {"x-request-id": said}
        return echo(asked, go)

    with serve(words, models=() if status == 0 else ("sandbox-teacher",)) as server:
        Watch(server, hook)
        try:
            more = {"key": CANARY, "max_tries": 2, "note": shown.append}
            shown.append(repr(bought(tmp_path / "l.db", server, pool(9), **more)))
        except TeacherDown as exc:
            shown += [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
        else:
            assert status in (200, 404, 500)
    shown += [record.getMessage() for record in caplog.records]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert CANARY not in "".join(shown)
    assert CANARY.encode() not in stored
    assert CANARY.replace("/", "\\/").encode() not in stored
