"""The spend of a ledger, from Python and on the command line."""

import sqlite3

import pytest

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.cli.main import main
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.spend import (
    GROUPS,
    build_spend_sql,
    open_snapshot,
    sum_rows,
    sum_spend,
)
from bridgekd.recipe import Price

RAW = """{"choices": [{"message": {"content": "Answer: 4"}, "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 10, "completion_tokens": 20}}"""


def call(n, model="m"):
    message = {"role": "user", "content": "2 + 2"}
    call = {"provider": "p", "model": model, "messages": [message], "max_tokens": 50}
    return call | {"sample_index": n}


def fill(ledger):
    """Three answers of two models in two runs, one open attempt, one unknown, one imported."""
    for n, run, model in ((0, "r1", "m"), (1, "r2", "m"), (2, "r2", "large")):
        attempt = ledger.reserve(call(n, model), run=run, purpose="train", reserve_microusd=900)
        ledger.record(attempt, RAW, price=Price(input=1, output=1))
        ledger.settle(attempt, "answered", RequestCost(10, 20, 30, 4, 5))
    ledger.reserve(call(3), run="r2", purpose="measure", reserve_microusd=700)
    unknown = ledger.reserve(call(4), run="r2", purpose="train", reserve_microusd=800)
    ledger.release(unknown, "unknown")
    ledger.import_answer(call(5), RAW, price=Price(input=2, output=2), run="r1")


def show(capsys, monkeypatch, *arguments):
    monkeypatch.setenv("COLUMNS", "200")
    code = main(["ledger", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        fill(ledger)
    return tmp_path / "ledger.db"


@pytest.mark.parametrize("by", [(), ("run",), ("model", "day"), ("state", "provider", "purpose")])
def test_every_grouping_adds_up_to_same_total(path, by):
    total = sum_rows(sum_spend(path, by))
    assert (total.n_attempts, total.n_prompt_tokens, total.n_completion_tokens) == (6, 40, 80)
    assert (total.n_cached_tokens, total.n_reasoning_tokens) == (12, 15)
    assert (total.paid_microusd, total.imported_microusd) == (90, 60)
    assert total.reserved_microusd == 90 + 700 + 800


def test_spend_is_summed_without_reading_texts(path):
    for by in [(), *((name,) for name in GROUPS), tuple(GROUPS)]:
        with open_snapshot(path) as db:
            plan = db.execute(f"EXPLAIN QUERY PLAN {build_spend_sql(by)}").fetchall()
        assert "SCAN attempts USING COVERING INDEX attempts_spent" in [step[3] for step in plan]


def test_groups_are_separate_and_sorted(path):
    rows = {(row.run, row.model): row.n_attempts for row in sum_spend(path, ("run", "model"))}
    assert rows == {("r1", "m"): 2, ("r2", "large"): 1, ("r2", "m"): 3}
    assert [row.state for row in sum_spend(path, ("state",))] == ["answered", "reserved", "unknown"]


def test_day_is_utc_day_of_reservation(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE attempts SET created_at = '2026-03-01T23:59:59.999+00:00' WHERE id = 1")
        db.execute("UPDATE attempts SET created_at = '2026-03-02T00:00:00.000+00:00' WHERE id > 1")
    db.close()
    rows = [(row.day, row.n_attempts) for row in sum_spend(path, ("day",))]
    assert rows == [("2026-03-01", 1), ("2026-03-02", 5)]


def test_table_shows_spend_with_total(path, capsys, monkeypatch):
    code, text = show(capsys, monkeypatch, "--ledger", path)
    assert code == 0
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert lines[1] == (
        "run model state attempts prompt completion cached reasoning paid reserved imported"
    )
    assert "r2 m unknown 1 0 0 0 0 $0.00 $0.0008 $0.00" in lines
    assert "r1 m answered 2 20 40 4 5 $0.00003 $0.00 $0.00006" in lines
    assert lines[-1] == "total 6 40 80 12 15 $0.00009 $0.0015 $0.00006"


def test_token_types_without_tokens_have_no_column(tmp_path, capsys, monkeypatch):
    with Ledger(tmp_path / "l.db") as ledger:
        attempt = ledger.reserve(call(0), run="r", purpose="train", reserve_microusd=900)
        ledger.settle(attempt, "answered", RequestCost(10, 20, 30))
    text = show(capsys, monkeypatch, "show", "--by", "day", "--ledger", tmp_path / "l.db")[1]
    assert "day (UTC)" in text and "paid" in text
    assert not any(word in text for word in ("cached", "reasoning", "imported"))


def test_spend_is_shown_during_a_purchase(path, capsys, monkeypatch):
    monkeypatch.chdir(path.parent)
    with Ledger(path) as ledger:
        ledger.reserve(call(9), run="now", purpose="train", reserve_microusd=100)
        code, text = show(capsys, monkeypatch, "--by", "run")
    assert code == 0 and "now" in text


@pytest.mark.parametrize("arguments", [("show",), ()])
def test_missing_ledger_is_named_and_not_created(tmp_path, capsys, monkeypatch, arguments):
    code, text = show(capsys, monkeypatch, "--ledger", tmp_path / "no.db", *arguments)
    assert code == 2 and "no ledger at" in text and "no.db" in text
    assert not (tmp_path / "no.db").exists()


def test_unknown_grouping_is_refused(path, capsys, monkeypatch):
    code, text = show(capsys, monkeypatch, "--ledger", path, "--by", "run,week")
    assert (
        code == 2 and "unknown column 'week'. Known: run, purpose, provider, model, state" in text
    )
