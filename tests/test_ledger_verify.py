"""A proof finds every way in which a ledger can have been changed behind its back."""

import json
import sqlite3
from contextlib import closing

import pytest

from bridgekd.cli.main import main
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import Issue, VerificationReport, verify
from test_ledger_import_export import call, fill, raw

ANSWERED, TRUNCATED, UNKNOWN, OPEN = 1, 2, 10, 12  # ids of what `fill` makes
STATE = "the state is not what the stored response says"
BILL = "tokens or cost are not what the stored response and price give"
KEY = "the key is not that of the stored request"


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        fill(ledger)
    return tmp_path / "ledger.db"


def tamper(path, *statements, without=()):
    """Changes the file past its rules; the rules named are put back afterwards."""
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


def test_a_ledger_of_every_kind_of_attempt_is_proved_and_open_and_dear_ones_are_noted(path):
    proof = verify(path)
    assert (proof.n_attempts, proof.errors) == (12, ())
    assert [(note.what[:12], note.ids) for note in proof.warnings] == [
        ("billed above", (7,)),
        ("open: being ", (OPEN,)),
    ]


@pytest.mark.parametrize(
    ("change", "what", "ids"),
    [
        (f"key = 'v1:0' WHERE id = {ANSWERED}", KEY, (ANSWERED,)),
        (f"request = replace(request, '2 + 2', '2 + 3') WHERE id = {UNKNOWN}", KEY, (UNKNOWN,)),
        (f"request = '[' WHERE id = {ANSWERED}", KEY, (ANSWERED,)),
        ("model = 'other' WHERE id = 3", "provider or model are not those of the stored", (3,)),
        (f"n_completion_tokens = 21 WHERE id = {ANSWERED}", BILL, (ANSWERED,)),
        ("n_cached_tokens = 1 WHERE id = 1", BILL, (1,)),
        ("n_reasoning_tokens = 1 WHERE id = 2", BILL, (2,)),
        ("cost_microusd = 79 WHERE id = 1", BILL, (1,)),
        ("cost_microusd = 71 WHERE id = 4", BILL, (4,)),
        ("cost_microusd = 1 WHERE id = 5", BILL, (5,)),
        ("cost_microusd = 122 WHERE id = 8", BILL, (8,)),
        ("""price = '{"input":2,"output":4}' WHERE id = 1""", BILL, (1,)),
        ("price = 'cheap' WHERE id = 1", BILL, (1,)),
        ("reserve_microusd = 899 WHERE id = 3", BILL, (3,)),
        (f"raw_response = replace(raw_response, '20', '19') WHERE id = {TRUNCATED}", BILL, (2,)),
        (f"raw_response = NULL WHERE id = {ANSWERED}", STATE, (ANSWERED,)),
        (f"state = 'answered' WHERE id = {TRUNCATED}", STATE, (TRUNCATED,)),
        ("state = 'refused' WHERE id = 1", STATE, (1,)),
        (f"raw_response = '{raw()}' WHERE id = 11", STATE, (11,)),
        ("n_prompt_tokens = 5 WHERE id = 9", "a bill without an answer", (9,)),
        ("settled_at = NULL WHERE id IN (1, 2)", "the time of settling does not fit", (1, 2)),
        (f"settled_at = 'x' WHERE id = {OPEN}", "the time of settling does not fit", (OPEN,)),
    ],
)
def test_an_attempt_that_was_changed_is_found_and_nothing_else_is(path, change, what, ids):
    tamper(path, f"UPDATE attempts SET {change}")
    (finding,) = verify(path).errors
    assert finding.what.startswith(what)
    assert (finding.n, finding.ids) == (len(ids), ids)


def test_a_total_that_was_changed_is_found(path):
    with Ledger(path) as ledger:
        held = ledger.reserved_microusd()
    tamper(path, "UPDATE totals SET held_microusd = held_microusd - 5")
    what = f"the total held is {held - 5:,} micro-dollars, but of all {held:,}"
    assert verify(path).errors == (Issue(what),)


def test_an_attempt_that_was_deleted_is_found(path):
    tamper(path, "DELETE FROM attempts WHERE id = 9", without=["nothing_is_deleted"])
    assert verify(path).errors == (Issue("what stood just before was deleted", 1, (10,)),)


def test_a_rule_that_is_gone_is_found(path):
    tamper(path, "DROP TRIGGER nothing_is_deleted", "DROP INDEX attempts_by_key")
    assert [f.what for f in verify(path).errors] == [
        "the index attempts_by_key is gone",
        "the trigger nothing_is_deleted is gone",
    ]


def test_two_final_attempts_at_one_call_are_found(path):
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
        Issue("the index one_final_attempt_per_key is gone"),
        Issue("another attempt at the same call is final too", 1, (again,)),
    )


def test_what_is_held_is_checked_against_the_state_and_not_against_the_file_s_own_rule(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            """UPDATE sqlite_master SET sql = replace(sql, '''reserved'', ''unknown'', ', '')
               WHERE name = 'attempts'"""
        )
    findings = verify(path).errors
    assert Issue("held is not what the state implies", 2, (UNKNOWN, OPEN)) in findings
    assert [f.what[:14] for f in findings] == ["held is not wh", "the total held"]


def test_a_row_that_names_a_batch_that_is_not_there_is_found(path):
    tamper(path, "UPDATE attempts SET batch = 'none' WHERE id = 9")
    (finding,) = verify(path).errors
    assert finding.what == "row 9 of attempts names a row of batches that is not there"


def test_a_damaged_file_is_found_and_not_read_further(path):
    with closing(sqlite3.connect(path)) as db:
        page, size = db.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master "
            "WHERE name = 'attempts_by_key'"
        ).fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size + size - 60)
        file.write(b"\xff" * 50)
    proof = verify(path)
    assert proof.errors and proof.n_attempts == 0
    assert all(finding.what.startswith("the file is damaged: ") for finding in proof.errors)


def test_a_file_without_tables_is_proved(tmp_path):
    path = tmp_path / "empty.db"
    sqlite3.connect(path).close()
    path.touch()
    assert verify(path) == VerificationReport(0, (), ())


def test_a_proof_is_given_while_a_run_is_buying_and_takes_no_lock(path):
    with Ledger(path) as ledger:
        ledger.reserve(call(20), run="r", purpose="train", reserve_microusd=1)
        proof = verify(path)
    assert (proof.n_attempts, proof.errors) == (13, ())


def test_a_finding_shows_the_first_ids_and_the_number_of_all(tmp_path, capsys):
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        for n in range(30):
            ledger.release(ledger.reserve(call(n), run="r", purpose="train", reserve_microusd=1))
    tamper(path, "UPDATE attempts SET key = 'v1:' || id")
    assert verify(path).errors == (Issue(KEY, 30, tuple(range(1, 11))),)
    assert main(["ledger", "verify", "--ledger", str(path)]) == 2
    said = capsys.readouterr()
    assert f"30 attempts: {KEY} (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in said.out
    assert "has 1 error. " in said.err and "Restore a backup" in said.err


def test_the_command_says_that_all_are_verified(path, capsys):
    assert main(["ledger", "verify", "--ledger", str(path)]) == 0
    said = capsys.readouterr().out
    assert "all 12 attempts verified" in said
    assert "1 attempt: billed above what was reserved (7)" in said


def test_what_a_response_says_in_json_does_not_confuse_the_proof(path):
    tamper(path, f"""UPDATE attempts SET raw_response = '{json.dumps([1])}' WHERE id = 1""")
    assert [finding.what for finding in verify(path).errors] == [STATE]
