"""The ledger's promises: no limit passed, nothing lost, nothing deleted, clear refusals."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.request_key import compute_request_key
from bridgekd.errors import HardLimitError, InputError, OverbilledError
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.schema import VERSION
from bridgekd.ledger.spend import sum_spend
from bridgekd.recipe import Price

GOLDEN = Path(__file__).parent / "golden"
RAW = """{"choices": [{"message": {"content": "Answer: 4"}, "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 10, "completion_tokens": 20}}"""


def call(n=0):
    return {
        "provider": "p",
        "model": "m",
        "messages": [{"role": "user", "content": "2 + 2"}],
        "max_tokens": 50,
        "sample_index": n,
    }


def reserve(ledger, n=0, amount=900):
    return ledger.reserve(call(n), run="r", purpose="train", reserve_microusd=amount)


def answer(ledger, n=0, amount=900, cost=30):
    attempt = reserve(ledger, n, amount)
    ledger.record(attempt, RAW, price=Price(input=1, output=1), request_id="req-1")
    ledger.settle(attempt, "answered", RequestCost(10, 20, cost))


def test_an_answer_is_recalled_after_reopening(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        answer(ledger)
    with Ledger(tmp_path / "l.db") as ledger:
        stored = ledger.find_answer(compute_request_key(call()))
        assert (stored.state, stored.bill.cost_microusd, stored.raw_response) == (
            "answered",
            30,
            RAW,
        )
        assert ledger.find_answer(compute_request_key(call(1))) is None


def test_a_reservation_past_the_hard_stop_is_refused_and_leaves_no_row(tmp_path):
    with Ledger(tmp_path / "l.db", hard_stop_microusd=1000) as ledger:
        reserve(ledger, 0, 900)
        with pytest.raises(
            HardLimitError, match=r"\$0\.001 .*holds \$0\.0009 .*raise hard_limit_usd"
        ):
            reserve(ledger, 1, 101)
        assert ledger.reserved_microusd() == 900
        reserve(ledger, 1, 100)


@given(
    st.integers(0, 3000),
    st.lists(
        st.tuples(
            st.sampled_from(["answered", "truncated", "failed", "unknown", "unparsable", "open"]),
            st.integers(0, 400),
            st.integers(0, 400),
        ),
        max_size=25,
    ),
)
@settings(deadline=None, max_examples=40)
def test_what_is_held_is_the_sum_of_what_may_be_billed_and_never_passes_the_stop(
    tmp_path_factory, stop, attempts
):
    path = tmp_path_factory.mktemp("l") / "l.db"
    expected = 0
    with Ledger(path, hard_stop_microusd=stop) as ledger:
        for n, (state, a, b) in enumerate(attempts):
            most, cost = max(a, b), min(a, b)
            if expected + most > stop:
                with pytest.raises(HardLimitError):
                    reserve(ledger, n, most)
                continue
            attempt = reserve(ledger, n, most)
            if state in ("answered", "truncated"):
                ledger.settle(attempt, state, RequestCost(1, 1, cost))
            elif state != "open":
                ledger.release(attempt, state)
            expected += {"answered": cost, "truncated": cost, "failed": 0}.get(state, most)
            assert ledger.reserved_microusd() == expected <= stop
    assert sum(row.reserved_microusd for row in sum_spend(path)) == expected


def test_a_key_has_one_final_attempt(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        answer(ledger)
        second = reserve(ledger)
        with pytest.raises(sqlite3.IntegrityError):
            ledger.settle(second, "truncated", RequestCost(1, 1, 1))
        assert ledger.find_answer(compute_request_key(call())).state == "answered"


def test_what_is_settled_is_never_changed_and_nothing_is_deleted(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        attempt = reserve(ledger)
        ledger.settle(attempt, "refused", RequestCost())
        with pytest.raises(ValueError, match="not open"):
            ledger.release(attempt, "failed")
        with pytest.raises(sqlite3.IntegrityError, match="forgets nothing"):
            ledger._connection("write").execute("DELETE FROM attempts")


def test_a_bill_above_the_reserve_is_written_and_then_raised(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(OverbilledError, match=r"\$0\.00095, .*\$0\.0009 at most"):
            answer(ledger, amount=900, cost=950)
        assert ledger.find_answer(compute_request_key(call())).bill.cost_microusd == 950
        assert ledger.reserved_microusd() == 950


def test_a_failed_attempt_costs_nothing_and_the_call_may_be_asked_again(tmp_path):
    with Ledger(tmp_path / "l.db", hard_stop_microusd=900) as ledger:
        for _ in range(3):
            ledger.release(reserve(ledger), "failed")
        answer(ledger)
        assert ledger.reserved_microusd() == 30


def test_an_attempt_left_open_becomes_unknown_and_stays_held(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        reserve(ledger)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.reserved_microusd() == 900
        assert ledger.find_answer(compute_request_key(call())) is None
        assert ledger.recover() == 0
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unknown"]


def test_a_recorded_response_that_was_never_read_is_not_lost(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(reserve(ledger), RAW, price=Price(input=1.5, output=2))
    with Ledger(tmp_path / "l.db") as ledger:
        stored = ledger.find_answer(compute_request_key(call()))
        assert (stored.state, stored.bill.cost_microusd) == ("answered", 55)
        assert ledger.reserved_microusd() == 55


def test_a_recorded_response_that_cannot_be_read_is_kept_and_held(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(reserve(ledger), "<html>", price=None)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.reserved_microusd() == 900
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unparsable"]


def test_a_kill_releases_the_lock_and_keeps_what_was_committed(tmp_path):
    child = f"""
import os, signal
from bridgekd.ledger.ledger import Ledger
ledger = Ledger({str(tmp_path / "l.db")!r}).__enter__()
request = {call()!r}
ledger.reserve(request, run="r", purpose="train", reserve_microusd=900)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", child], check=False).returncode == -9
    notes = []
    with Ledger(tmp_path / "l.db", on_wait=notes.append) as ledger:
        assert (ledger.reserved_microusd(), notes) == (900, [])
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unknown"]


def test_a_second_writer_says_that_it_waits_and_then_gets_its_turn(tmp_path):
    waiting, done = threading.Event(), threading.Event()

    def second():
        with Ledger(tmp_path / "l.db", on_wait=lambda note: waiting.set()) as ledger:
            assert ledger.find_answer(compute_request_key(call())) is not None
            done.set()

    with Ledger(tmp_path / "l.db") as ledger:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        answer(ledger)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()


def test_spend_is_read_while_a_writer_is_open(tmp_path):
    path = tmp_path / "l.db"
    assert sum_spend(path) == ()
    path.touch()
    assert sum_spend(path) == ()
    with Ledger(path) as ledger:
        answer(ledger, 0)
        answer(ledger, 1, cost=12)
        reserve(ledger, 2)
        rows = {row.state: (row.n_attempts, row.reserved_microusd) for row in sum_spend(path)}
    assert rows == {"answered": (2, 42), "reserved": (1, 900)}


def test_a_file_that_is_no_ledger_is_refused_untouched(tmp_path):
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("my notes, more than a few of them\n" * 100)
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    for path in (text, database):
        before = path.read_bytes()
        for use in (lambda p: Ledger(p).__enter__(), sum_spend):
            with pytest.raises(InputError, match=path.name):
                use(path)
        assert path.read_bytes() == before
    with pytest.raises(InputError, match="is a folder"), Ledger(tmp_path):
        pass


@pytest.mark.parametrize(
    "version, message",
    [(VERSION + 1, "newer bridgekd"), (VERSION - 1, "development version .* import the export")],
)
def test_a_ledger_of_another_version_is_refused(tmp_path, version, message):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger._connection("write").execute(f"PRAGMA user_version = {version}")
    for use in (lambda p: Ledger(p).__enter__(), sum_spend):
        with pytest.raises(InputError, match=message):
            use(tmp_path / "l.db")


def test_format_of_the_database_is_the_stored_one(tmp_path):
    """Ledgers hold answers that were paid for: a change of this file loses them."""
    with Ledger(tmp_path / "l.db") as ledger:
        db = ledger._connection("write")
        rows = db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY type, name")
        sql = [" ".join(row[0].split()) + ";" for row in rows]
        pragmas = [f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};"
                   for name in ("application_id", "user_version")]  # fmt: skip
    assert [*pragmas, *sql] == (GOLDEN / "ledger_schema.sql").read_text().splitlines()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"l\.db"), Ledger(tmp_path / "file" / "l.db"):
        pass


def test_a_full_disk_stops_with_a_sentence_and_loses_nothing(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        n_pages = ledger._connection("write").execute("PRAGMA page_count").fetchone()[0]
        ledger._connection("write").execute(f"PRAGMA max_page_count = {n_pages + 3}")
        n_written = 0
        with pytest.raises(InputError, match="disk is full; free some space"):
            for n in range(1000):
                answer(ledger, n)
                n_written += 1
    with Ledger(tmp_path / "l.db") as ledger:
        assert all(ledger.find_answer(compute_request_key(call(n))) for n in range(n_written))
        answer(ledger, 5000)


def test_a_locked_out_caller_is_told_to_use_a_with_statement(tmp_path):
    with pytest.raises(ValueError, match="with statement"):
        Ledger(tmp_path / "l.db").find_answer("v1:x")
