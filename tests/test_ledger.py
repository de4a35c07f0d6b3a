"""The ledger passes no limit, loses and deletes nothing, and explains what it refuses."""

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


def make_request(n=0):
    return {
        "provider": "p",
        "model": "m",
        "messages": [{"role": "user", "content": "2 + 2"}],
        "max_tokens": 50,
        "sample_index": n,
    }


def reserve(ledger, n=0, amount=900):
    return ledger.reserve(make_request(n), run="r", purpose="train", reserve_microusd=amount)


def answer(ledger, n=0, amount=900, cost=30):
    attempt = reserve(ledger, n, amount)
    ledger.record(attempt, RAW, price=Price(input=1, output=1), request_id="req-1")
    ledger.settle(attempt, "answered", RequestCost(10, 20, cost))


def test_answer_is_found_after_reopening(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        answer(ledger)
    with Ledger(tmp_path / "l.db") as ledger:
        stored = ledger.find_answer(compute_request_key(make_request()))
        assert (stored.state, stored.cost.cost_microusd, stored.raw_response) == (
            "answered",
            30,
            RAW,
        )
        assert ledger.find_answer(compute_request_key(make_request(1))) is None


def test_reservation_above_hard_limit_is_refused_without_row(tmp_path):
    with Ledger(tmp_path / "l.db", hard_limit_microusd=1000) as ledger:
        reserve(ledger, 0, 900)
        with pytest.raises(
            HardLimitError, match=r"\$0\.001 .*counts \$0\.0009, .*Raise hard_limit_usd"
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
def test_reserved_total_is_sum_of_possible_costs_and_never_passes_limit(
    tmp_path_factory, limit, attempts
):
    path = tmp_path_factory.mktemp("l") / "l.db"
    expected = 0
    with Ledger(path, hard_limit_microusd=limit) as ledger:
        for n, (state, a, b) in enumerate(attempts):
            maximum, cost = max(a, b), min(a, b)
            if expected + maximum > limit:
                with pytest.raises(HardLimitError):
                    reserve(ledger, n, maximum)
                continue
            attempt = reserve(ledger, n, maximum)
            if state in ("answered", "truncated"):
                ledger.settle(attempt, state, RequestCost(1, 1, cost))
            elif state != "open":
                ledger.release(attempt, state)
            expected += {"answered": cost, "truncated": cost, "failed": 0}.get(state, maximum)
            assert ledger.reserved_microusd() == expected <= limit
    assert sum(row.reserved_microusd for row in sum_spend(path)) == expected


def test_key_has_one_final_attempt(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        answer(ledger)
        second = reserve(ledger)
        with pytest.raises(sqlite3.IntegrityError):
            ledger.settle(second, "truncated", RequestCost(1, 1, 1))
        assert ledger.find_answer(compute_request_key(make_request())).state == "answered"


def test_settled_attempts_never_change_and_nothing_is_deleted(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        attempt = reserve(ledger)
        ledger.settle(attempt, "refused", RequestCost())
        with pytest.raises(ValueError, match="not open"):
            ledger.release(attempt, "failed")
        with pytest.raises(sqlite3.IntegrityError, match="forgets nothing"):
            ledger._connection("write").execute("DELETE FROM attempts")


def test_cost_above_reserve_is_written_then_raised(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(OverbilledError, match=r"\$0\.00095\. .*at most \$0\.0009,"):
            answer(ledger, amount=900, cost=950)
        assert ledger.find_answer(compute_request_key(make_request())).cost.cost_microusd == 950
        assert ledger.reserved_microusd() == 950


def test_failed_attempt_is_free_and_request_can_be_sent_again(tmp_path):
    with Ledger(tmp_path / "l.db", hard_limit_microusd=900) as ledger:
        for _ in range(3):
            ledger.release(reserve(ledger), "failed")
        answer(ledger)
        assert ledger.reserved_microusd() == 30


def test_abandoned_attempt_becomes_unknown_and_stays_reserved(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        reserve(ledger)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.reserved_microusd() == 900
        assert ledger.find_answer(compute_request_key(make_request())) is None
        assert ledger.recover() == 0
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unknown"]


def test_recorded_response_that_was_never_parsed_is_settled(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(reserve(ledger), RAW, price=Price(input=1.5, output=2))
    with Ledger(tmp_path / "l.db") as ledger:
        stored = ledger.find_answer(compute_request_key(make_request()))
        assert (stored.state, stored.cost.cost_microusd) == ("answered", 55)
        assert ledger.reserved_microusd() == 55


def test_unparsable_response_is_kept_and_reserved(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record(reserve(ledger), "<html>", price=None)
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.reserved_microusd() == 900
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unparsable"]


def test_kill_releases_lock_and_keeps_committed_rows(tmp_path):
    child = f"""
import os, signal
from bridgekd.ledger.ledger import Ledger
ledger = Ledger({str(tmp_path / "l.db")!r}).__enter__()
request = {make_request()!r}
ledger.reserve(request, run="r", purpose="train", reserve_microusd=900)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", child], check=False).returncode == -9
    notes = []
    with Ledger(tmp_path / "l.db", on_wait=notes.append) as ledger:
        assert (ledger.reserved_microusd(), notes) == (900, [])
    assert [row.state for row in sum_spend(tmp_path / "l.db")] == ["unknown"]


def test_second_writer_waits_with_message(tmp_path):
    waiting, done = threading.Event(), threading.Event()

    def second():
        with Ledger(tmp_path / "l.db", on_wait=lambda note: waiting.set()) as ledger:
            assert ledger.find_answer(compute_request_key(make_request())) is not None
            done.set()

    with Ledger(tmp_path / "l.db") as ledger:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        answer(ledger)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()


def test_spend_is_read_while_writer_is_open(tmp_path):
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


def test_file_that_is_not_ledger_is_refused_unchanged(tmp_path):
    text, database = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("my notes, several lines of them\n" * 100)
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
def test_ledger_of_another_version_is_refused(tmp_path, version, message):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger._connection("write").execute(f"PRAGMA user_version = {version}")
    for use in (lambda p: Ledger(p).__enter__(), sum_spend):
        with pytest.raises(InputError, match=message):
            use(tmp_path / "l.db")


def test_database_format_is_the_stored_one(tmp_path):
    """A ledger contains paid answers: a changed format would lose them."""
    with Ledger(tmp_path / "l.db") as ledger:
        db = ledger._connection("write")
        rows = db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY type, name")
        sql = [" ".join(row[0].split()) + ";" for row in rows]
        pragmas = [f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};"
                   for name in ("application_id", "user_version")]  # fmt: skip
    assert [*pragmas, *sql] == (GOLDEN / "ledger_schema.sql").read_text().splitlines()


def test_unwritable_path_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"l\.db"), Ledger(tmp_path / "file" / "l.db"):
        pass


def test_full_disk_stops_with_message_and_loses_nothing(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        n_pages = ledger._connection("write").execute("PRAGMA page_count").fetchone()[0]
        ledger._connection("write").execute(f"PRAGMA max_page_count = {n_pages + 3}")
        n_written = 0
        with pytest.raises(InputError, match=r"disk is full\..* Free some space"):
            for n in range(1000):
                answer(ledger, n)
                n_written += 1
    with Ledger(tmp_path / "l.db") as ledger:
        assert all(
            ledger.find_answer(compute_request_key(make_request(n))) for n in range(n_written)
        )
        answer(ledger, 5000)


def test_closed_ledger_asks_for_with_statement(tmp_path):
    with pytest.raises(ValueError, match="with statement"):
        Ledger(tmp_path / "l.db").find_answer("v1:x")
