"""Batches that outlive the process which sent them: killed, stopped, finished by others."""

import os
import signal
import sqlite3
import time

import pytest

from batch_fakes import (
    PRICE,
    RESERVE,
    BatchServerSpy,
    buy_batch,
    check_clean_exit,  # noqa: F401
    make_other_requests,
    n_open,
    own_calls,
    start_process,
    stop_purchase,
)
from bridgekd.cost.budget import Limits
from bridgekd.errors import TeacherUnavailableError
from bridgekd.ledger.ledger import Ledger
from bridgekd.recipe import Price
from faulty_teacher import BatchFaults, Faults, run_teacher_server
from test_live_transport import counts, held, pool, purchase, words

pytestmark = pytest.mark.usefixtures("check_clean_exit")


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
def test_a_killed_purchase_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path, name, when, left, nth
):
    faults, limits = BatchFaults(batch_s=0.02), Limits(microusd=3_000)
    with run_teacher_server(words, seed=3, batch_faults=faults) as server:
        calm = buy_batch(tmp_path / "calm.db", server, pool(60), limits=limits)
    with run_teacher_server(words, seed=3, batch_faults=faults) as server:
        path = tmp_path / "l.db"

        def hook(requested, go):
            if requested != name or spy.seen["POST files"] != nth:
                return go()
            answer = go() if when == "after" else None
            os.kill(process.pid, signal.SIGKILL)
            return answer

        spy = BatchServerSpy(server, hook)
        with start_process(path, server, microusd=3_000) as process:
            assert process.wait(60) == -9, process.stderr.read().decode()
        spy.hook = lambda requested, go: go()
        assert n_open(path) == (left == "reserved")  # when the ledger is opened
        assert counts(path).get(left, 0) > 0
        n_done = counts(path).get("answered", 0)
        assert (n_done > 0) == (nth == 2)
        again = buy_batch(path, server, pool(60), limits=limits)
        assert (again.completions, again.stop_reason) == (calm.completions, "usd")
        assert again.charged_microusd == calm.charged_microusd == server.billed
        assert set(server.served.values()) == {1}
        never_created = (name, when) == ("POST batches", "before")  # but it may have been
        n_unknown = counts(path).get("unknown", 0)
        assert (n_unknown > 0) == never_created
        assert held(path) == server.billed + RESERVE * n_unknown
        assert n_open(path) == 0


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_purchase_killed_at_any_commit_pays_nothing_twice(tmp_path, nth):
    """A batch has about seven: reserve, join, before the creation, its id, record, settle."""
    path, limits = tmp_path / "l.db", Limits(microusd=12_500)
    with run_teacher_server(words, seed=3) as server:
        with start_process(path, server, microusd=12_500, die_at=nth) as process:
            assert process.wait(60) == -9, process.stderr.read().decode()
        result = buy_batch(path, server, pool(60), limits=limits)
        assert len(result.completions) == 60
        assert set(server.served.values()) == {1}
        uncreated = RESERVE * counts(path).get(
            "unknown", 0
        )  # reserved, or with an unknown creation
        assert result.charged_microusd == server.billed == held(path) - uncreated
        assert (n_open(path), "reserved" in counts(path)) == (0, False)


def test_an_interrupt_leaves_the_batch_and_the_next_start_takes_it(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(batch_s=2.5)) as server:
        spy = BatchServerSpy(server)
        with start_process(path, server, microusd=20_000) as process:
            spy.wait_for("GET batch")
            process.send_signal(signal.SIGINT)
            assert (process.wait(20), process.stderr.read()) == (130, b"")
        assert (n_open(path), set(counts(path))) == (1, {"reserved"})
        n_sent, posts = counts(path)["reserved"], spy.seen["POST batches"]
        again = buy_batch(path, server, pool(n_sent))
        assert (again.n_requests_sent, again.n_reused) == (0, n_sent) == (0, len(again.completions))
        assert spy.seen["POST batches"] == spy.seen["POST files"] == posts == 1
        assert again.charged_microusd == server.billed == held(path)
        assert (n_open(path), set(counts(path))) == (0, {"answered"})


def test_an_interrupt_before_anything_left_costs_nothing(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)

        def hook(name, go):
            time.sleep(0.5)  # the purchase stops during the upload
            return go()

        spy.hook = hook
        stop_purchase(path, server, spy, pool(20), stop_at="POST files")
        assert (counts(path), held(path), spy.seen["POST batches"]) == ({"failed": 20}, 0, 0)


def test_what_is_in_no_batch_yet_when_we_stop_costs_nothing(tmp_path):
    path = tmp_path / "l.db"

    def requests():
        """Yield 20 new requests; raise when all are reserved and wait for a batch."""
        yield from pool(20)
        while counts(path).get("reserved", 0) < 20:
            yield make_other_requests(1)[0]
        yield from make_other_requests(1) * 50
        raise RuntimeError("stop")

    with run_teacher_server(words) as server:
        buy_batch(path, server, make_other_requests(1))
        spy = BatchServerSpy(server, lambda name, go: pytest.fail("nothing is to be sent"))
        with pytest.raises(RuntimeError, match="stop"):
            buy_batch(path, server, requests())
        assert counts(path) == {"answered": 1, "failed": 20}
        assert (held(path), spy.seen.total()) == (server.billed, 0)


def test_a_batch_that_is_being_made_when_we_stop_gets_its_name(tmp_path):
    path = tmp_path / "l.db"

    def slowly(name, go):
        answer = go()
        time.sleep(0.4 if name == "POST batches" else 0)
        return answer

    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server, slowly)
        stop_purchase(path, server, spy, pool(20), stop_at="POST batches")
        with Ledger(path) as ledger:
            assert ledger.open_batches()[0].remote_id.startswith("batch_")
        assert buy_batch(path, server, pool(20)).n_requests_sent == 0
        assert (spy.seen["GET list"], set(server.served.values())) == (0, {1})


def test_expired_requests_of_an_earlier_batch_are_sent_again(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(expire=0.4)) as server:
        stop_purchase(path, server, BatchServerSpy(server), pool(20))
        result = buy_batch(path, server, pool(20), max_attempts=20)
        assert len(result.completions) == 20
        assert result.n_requests_sent == server.calls.total() - 20 > 0
        assert (set(server.served.values()), held(path)) == ({1}, server.billed)


def test_another_purchase_saves_the_answers_of_an_earlier_batch(tmp_path):
    path = tmp_path / "l.db"
    faults = BatchFaults(expire=0.2, missing=0.2)
    with run_teacher_server(
        words, faults=Faults(refuse=0.2), batch_faults=faults, seed=1
    ) as server:
        spy = BatchServerSpy(server)
        stop_purchase(path, server, spy, pool(30))
        billed = server.billed
        free = Price(input=0, output=0)
        result = buy_batch(
            path, server, make_other_requests(12), price=free, run="other", max_attempts=20
        )
        assert (result.n_requests_sent >= 12, len(result.completions), n_open(path)) == (
            True,
            12,
            0,
        )
        with sqlite3.connect(path) as db:
            states = dict(
                db.execute(
                    "SELECT state, count(*) FROM attempts WHERE run = 'r' GROUP BY 1"
                ).fetchall()
            )
            paid = db.execute(
                "SELECT sum(cost_microusd) FROM attempts WHERE run = 'r' AND state = 'answered'"
            ).fetchone()[0]
        db.close()
        assert states.keys() == {"answered", "refused", "failed", "unknown"}
        assert sum(states.values()) == 30
        assert paid < billed <= paid + states["unknown"] * RESERVE == held(path)
        again = buy_batch(path, server, pool(30), max_attempts=20)
        assert again.n_reused == states["answered"] + states["refused"]
        assert len(again.completions) == 30
        assert server.billed <= held(path)


def test_what_was_sent_at_another_price_is_charged_that(tmp_path):
    path = tmp_path / "l.db"
    for sent, now in ((PRICE, None), (None, PRICE), (PRICE, Price(input=90, output=90))):
        path.unlink(missing_ok=True)
        with run_teacher_server(words, faults=Faults(no_usage=0.2)) as server:
            stop_purchase(path, server, BatchServerSpy(server), pool(10), price=sent)
            result = buy_batch(path, server, pool(10), price=now)
            reserved = RESERVE * (sent is not None)
            costs = {c.cost_microusd for c in result.completions}
            assert result.n_requests_sent == 0
            assert result.charged_microusd == held(path)
            assert result.charged_microusd >= server.billed * (sent is not None)
            assert max(costs) == reserved  # of an answer without usage
            assert (min(costs) == 0) == (sent is None)


def test_a_live_purchase_does_not_pay_for_what_is_in_a_batch(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(batch_s=60)) as server:
        stop_purchase(path, server, BatchServerSpy(server), pool(10)[5:])
        before = held(path)
        with pytest.raises(
            TeacherUnavailableError, match=r"e5 is in a batch .*transport: batch"
        ) as caught:
            purchase(path, server, pool(20))
        assert caught.value.exit_code == 3
        assert set(own_calls(server, pool(20)[5:])) <= {0, 1}  # 1: from within the batch
        assert counts(path)["reserved"] == 5
        assert held(path) == before + server.billed
