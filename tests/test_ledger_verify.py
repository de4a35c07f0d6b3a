"""A verification finds every change of a ledger that bridgekd did not make."""

import json
import sqlite3
from contextlib import closing

import pytest

from bridgekd.cli.main import main
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import Issue, VerificationReport, verify
from test_ledger_import_export import call, fill, raw

ANSWERED, TRUNCATED, UNKNOWN, OPEN = 1, 2, 10, 12  # ids of what `fill` makes
STATE = "the state does not match the stored response"
COST = "the tokens or the cost do not match the stored response and price"
KEY = "the key does not match the stored request"


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        fill(ledger)
    return tmp_path / "ledger.db"


def tamper(path, *statements, without=()):
    """Change the file in spite of its rules. The rules in `without` are restored afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        texts = []
        for name in without:
            kind, text = db.execute(
                "SELECT type, sql FROM sqlite_master WHERE name = ?", (name,)
            ).fetchone()
            texts.append(text)
            db.execute(f"DROP {kind} {name}")
        for statement in statements:
            db.execute(statement)
        for text in texts:
            db.execute(text)


def test_ledger_of_all_states_is_correct_with_warnings(path):
    report = verify(path)
    assert (report.n_attempts, report.errors) == (12, ())
    assert [(issue.what[:12], issue.ids) for issue in report.warnings] == [
        ("billed above", (7,)),
        ("open: in a r", (OPEN,)),
    ]


@pytest.mark.parametrize(
    ("change", "what", "ids"),
    [
        (f"key = 'v1:0' WHERE id = {ANSWERED}", KEY, (ANSWERED,)),
        (f"request = replace(request, '2 + 2', '2 + 3') WHERE id = {UNKNOWN}", KEY, (UNKNOWN,)),
        (f"request = '[' WHERE id = {ANSWERED}", KEY, (ANSWERED,)),
        ("model = 'other' WHERE id = 3", "the provider or the model does not match", (3,)),
        (f"n_completion_tokens = 21 WHERE id = {ANSWERED}", COST, (ANSWERED,)),
        ("n_cached_tokens = 1 WHERE id = 1", COST, (1,)),
        ("n_reasoning_tokens = 1 WHERE id = 2", COST, (2,)),
        ("cost_microusd = 79 WHERE id = 1", COST, (1,)),
        ("cost_microusd = 71 WHERE id = 4", COST, (4,)),
        ("cost_microusd = 1 WHERE id = 5", COST, (5,)),
        ("cost_microusd = 122 WHERE id = 8", COST, (8,)),
        ("""price = '{"input":2,"output":4}' WHERE id = 1""", COST, (1,)),
        ("price = 'cheap' WHERE id = 1", COST, (1,)),
        ("reserve_microusd = 899 WHERE id = 3", COST, (3,)),
        (f"raw_response = replace(raw_response, '20', '19') WHERE id = {TRUNCATED}", COST, (2,)),
        (f"raw_response = NULL WHERE id = {ANSWERED}", STATE, (ANSWERED,)),
        (f"state = 'answered' WHERE id = {TRUNCATED}", STATE, (TRUNCATED,)),
        ("state = 'refused' WHERE id = 1", STATE, (1,)),
        (f"raw_response = '{raw()}' WHERE id = 11", STATE, (11,)),
        ("n_prompt_tokens = 5 WHERE id = 9", "the attempt has a cost but no answer", (9,)),
        ("settled_at = NULL WHERE id IN (1, 2)", "the settling time does not match", (1, 2)),
        (f"settled_at = 'x' WHERE id = {OPEN}", "the settling time does not match", (OPEN,)),
    ],
)
def test_changed_attempt_is_found_and_nothing_else(path, change, what, ids):
    tamper(path, f"UPDATE attempts SET {change}")
    (issue,) = verify(path).errors
    assert issue.what.startswith(what)
    assert (issue.n, issue.ids) == (len(ids), ids)


def test_changed_total_is_found(path):
    with Ledger(path) as ledger:
        reserved = ledger.reserved_microusd()
    tamper(path, "UPDATE totals SET held_microusd = held_microusd - 5")
    what = (
        f"the reserved total is {reserved - 5:,} micro-dollars, but the attempts add up to "
        f"{reserved:,}"
    )
    assert verify(path).errors == (Issue(what),)


def test_deleted_attempt_is_found(path):
    tamper(path, "DELETE FROM attempts WHERE id = 9", without=["nothing_is_deleted"])
    assert verify(path).errors == (Issue("the attempt before it was deleted", 1, (10,)),)


def test_missing_trigger_and_index_are_found(path):
    tamper(path, "DROP TRIGGER nothing_is_deleted", "DROP INDEX attempts_by_key")
    assert [e.what for e in verify(path).errors] == [
        "the index attempts_by_key is missing",
        "the trigger nothing_is_deleted is missing",
    ]


def test_two_final_attempts_of_one_request_are_found(path):
    with Ledger(path) as ledger:
        again = ledger.reserve(call(0), run="r", purpose="train", reserve_microusd=900)
        ledger.record(again, raw(), price=None)
    tamper(
        path,
        "DROP INDEX one_final_attempt_per_key",
        f"""UPDATE attempts SET state = 'answered', settled_at = 'x', n_prompt_tokens = 10,
            n_completion_tokens = 20, cost_microusd = 0 WHERE id = {again}""",
    )
    assert verify(path).errors == (
        Issue("the index one_final_attempt_per_key is missing"),
        Issue("another attempt of the same request is final too", 1, (again,)),
    )


def test_reserved_amount_is_checked_against_state_not_against_rule_of_the_file(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            """UPDATE sqlite_master SET sql = replace(sql, '''reserved'', ''unknown'', ', '')
               WHERE name = 'attempts'"""
        )
    errors = verify(path).errors
    assert Issue("the reserved amount does not match the state", 2, (UNKNOWN, OPEN)) in errors
    assert [e.what[:14] for e in errors] == ["the reserved a", "the reserved t"]


def test_reference_to_missing_batch_is_found(path):
    tamper(path, "UPDATE attempts SET batch = 'none' WHERE id = 9")
    (issue,) = verify(path).errors
    assert issue.what == "row 9 of attempts refers to a missing row of batches"


def test_damaged_file_is_not_read_further(path):
    with closing(sqlite3.connect(path)) as db:
        page, size = db.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master "
            "WHERE name = 'attempts_by_key'"
        ).fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size + size - 60)
        file.write(b"\xff" * 50)
    report = verify(path)
    assert report.errors and report.n_attempts == 0
    assert all(issue.what.startswith("the file is damaged: ") for issue in report.errors)


def test_file_without_tables_is_correct(tmp_path):
    path = tmp_path / "empty.db"
    sqlite3.connect(path).close()
    path.touch()
    assert verify(path) == VerificationReport(0, (), ())


def test_verification_takes_no_lock(path):
    with Ledger(path) as ledger:
        ledger.reserve(call(20), run="r", purpose="train", reserve_microusd=1)
        report = verify(path)
    assert (report.n_attempts, report.errors) == (13, ())


def test_issue_shows_first_ids_and_number_of_all(tmp_path, capsys):
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        for n in range(30):
            ledger.release(ledger.reserve(call(n), run="r", purpose="train", reserve_microusd=1))
    tamper(path, "UPDATE attempts SET key = 'v1:' || id")
    assert verify(path).errors == (Issue(KEY, 30, tuple(range(1, 11))),)
    assert main(["ledger", "verify", "--ledger", str(path)]) == 2
    printed = capsys.readouterr()
    assert f"30 attempts: {KEY} (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in printed.out
    assert "has 1 error. " in printed.err and "Restore a backup" in printed.err


def test_command_reports_number_of_verified_attempts(path, capsys):
    assert main(["ledger", "verify", "--ledger", str(path)]) == 0
    text = capsys.readouterr().out
    assert "all 12 attempts verified" in text
    assert "1 attempt: billed above its reserve (7)" in text


def test_response_with_other_json_is_found(path):
    tamper(path, f"""UPDATE attempts SET raw_response = '{json.dumps([1])}' WHERE id = 1""")
    assert [issue.what for issue in verify(path).errors] == [STATE]
