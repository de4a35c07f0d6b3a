"""Plan and status: they use all that is known, and reading changes nothing."""

import shutil
import sqlite3
from contextlib import closing

import pytest

import bridgekd
from bridgekd import api
from bridgekd.api_client.request_key import TeacherRequest, build_request, compute_request_key
from bridgekd.cli.main import main
from bridgekd.cost.budget import Limits
from bridgekd.errors import BridgekdError, InputError
from bridgekd.io.load_recipe import load_recipe
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.usage_history import (
    read_known_answers,
    read_known_costs,
    read_reserved_microusd,
)
from bridgekd.plans.cost import forecast_purchase
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Message
from bridgekd.runs.metadata import read_metadata
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL
from bridgekd.teacher.buy_answers import buy_answers
from conftest import write_jsonl
from faulty_teacher import Faults, run_teacher_server

NO_FAULTS = Faults()
DIRECT = {"methods": ["direct"]}


def make_teacher(url="http://127.0.0.1:9/v1", **fields):
    return TeacherOptions(
        provider="sandbox",
        model=SANDBOX_MODEL,
        base_url=url,
        api_key_env=None,
        price=Price(input=2.5, output=10),
        **{"max_tokens": 60} | fields,
    )


def requests(n, *, system="Be brief.", start=0):
    return [
        TeacherRequest(str(i), i, (Message("system", system), Message("user", f"question {i}")))
        for i in range(start, start + n)
    ]


def fill_ledger(path, n, *, reply=lambda question, seed: "a b c d e", faults=NO_FAULTS, **fields):
    """Buy n answers into a ledger; return the teacher."""
    with run_teacher_server(reply, faults=faults) as server, Ledger(path) as ledger:
        teacher = make_teacher(server.base_url, **fields)
        buy_answers(
            requests(n), ledger, teacher=teacher, limits=Limits(), run="r", api_key="none",
        )  # fmt: skip
    return teacher


def make_forecast(path, planned, teacher, **options):
    return forecast_purchase(
        planned, teacher=teacher, ledger=path, **{"limits": Limits(), "ordered": True} | options
    )


def test_answers_in_the_ledger_are_known_exactly(tmp_path):
    path = tmp_path / "ledger.db"
    teacher = fill_ledger(path, 25)
    forecast = make_forecast(path, requests(40), teacher)
    assert forecast.n_reused == 25
    assert forecast.reused_microusd == read_reserved_microusd(path) > 0
    assert forecast.source == "own answers"
    assert (
        forecast.unpaid.ci_low
        < forecast.unpaid.ci_high
        < forecast.unpaid.maximum
        < forecast.total.maximum
    )
    assert make_forecast(path, requests(25), teacher).unpaid.maximum == 0
    assert make_forecast(path, requests(25), make_teacher(temperature=0.5)).n_reused == 0


def test_question_that_occurs_twice_is_paid_once(tmp_path):
    twice = requests(30) + requests(30)
    forecast = make_forecast(tmp_path / "none.db", twice, make_teacher())
    once = make_forecast(tmp_path / "none.db", requests(30), make_teacher())
    assert forecast.unpaid.maximum == once.unpaid.maximum
    assert forecast.total.maximum == 2 * once.total.maximum


def test_answers_to_another_prompt_are_another_source(tmp_path):
    path = tmp_path / "ledger.db"
    teacher = fill_ledger(path, 25)
    other = requests(30, system="Explain at length.", start=100)
    assert make_forecast(path, other, teacher).source == "other answers"
    assert make_forecast(path, requests(30, start=100), teacher).source == "answers"
    guessing = teacher.model_copy(update={"expected_completion_tokens": (5, 9)})
    assert make_forecast(path, other, guessing).source == "guess"


def test_refused_and_truncated_answers_are_recognized(tmp_path):
    path = tmp_path / "ledger.db"
    fill_ledger(path, 40, faults=Faults(refuse=0.3), reply=lambda q, seed: "w " * 50, max_tokens=20)
    usages = [
        a.usage for a in read_known_answers(path, build_request(make_teacher(), requests(1)[0]))
    ]
    assert len(usages) == 40
    assert 4 <= sum(u.is_free for u in usages) <= 24
    assert all(u.is_truncated and u.n_completion_tokens == 20 for u in usages if not u.is_free)


def test_hard_limit_leaves_what_ledger_does_not_reserve(tmp_path):
    path = tmp_path / "ledger.db"
    teacher = fill_ledger(path, 25)
    left = make_forecast(path, requests(400, start=50), teacher, hard_limit_usd=0.01)
    assert left.unpaid.maximum == 10_000 - read_reserved_microusd(path)


def test_reading_waits_for_no_writer_and_changes_nothing(tmp_path):
    path = tmp_path / "ledger.db"
    teacher = fill_ledger(path, 25)
    with Ledger(path) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")  # as the writer in the middle of a transaction
        before = path.read_bytes()
        assert make_forecast(path, requests(40), teacher).n_reused == 25
        assert path.read_bytes() == before
        assert ledger.reserved_microusd() == read_reserved_microusd(path)


def test_more_keys_than_one_query_takes_are_all_found(tmp_path):
    path = tmp_path / "ledger.db"
    teacher = fill_ledger(path, 25)
    keys = [compute_request_key(build_request(teacher, r)) for r in requests(25)]
    many = [*keys[:10], *(f"v1:{i:064x}" for i in range(25_000)), *keys[10:]]
    assert read_known_costs(path, many).keys() == set(keys)


def test_a_file_that_is_no_ledger_is_refused_in_the_plan(task):
    (task / "ledger.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match="is not a ledger"):
        api.plan(task / "task.yaml")


def test_a_ledger_on_a_shared_file_system_is_refused_in_the_plan(task, monkeypatch):
    from bridgekd.ledger import database as ledger_file

    monkeypatch.setattr(ledger_file, "find_file_system", lambda path, mounts: "nfs4")
    with pytest.raises(InputError, match="shared file system"):
        api.plan(task / "task.yaml")


def test_selection_that_depends_only_on_seed_is_known_before_it_is_made(task):
    (direct,) = api.plan(task / "task.yaml", **DIRECT).purchases
    assert (direct.requests.strategy, direct.requests.is_selected) == ("random", True)
    assert direct.forecast.n_queries == 5
    both = api.plan(task / "task.yaml", methods=["bridge", "direct"]).purchases
    assert [(p.requests.strategy, p.requests.is_selected) for p in both] == [
        ("bridge_greedy", False),
        ("random", True),
    ]


def test_of_several_rounds_only_the_first_is_known_before_it_is_purchased(task):
    overrides = ["select.strategy=random", "select.n_rounds=3"]
    purchases = api.plan(task / "task.yaml", overrides=overrides).purchases
    assert [p.requests.is_selected for p in purchases] == [True, False, False]


def test_a_warm_ledger_makes_the_plan_exact(tiny):
    spend = bridgekd.run(tiny, **DIRECT).metrics.arms["direct"].spend_usd
    shutil.rmtree(tiny.parent / "runs")
    plan = api.plan(tiny, **DIRECT)
    assert plan.train_cost.n_reused == 12 and plan.eval_cost.n_reused == 5
    assert plan.train_cost.unpaid.maximum == plan.eval_cost.unpaid.maximum == 0
    assert plan.train_cost.total.minimum == plan.train_cost.total.maximum == round(spend * 1e6)


@pytest.fixture
def stopped_run(tiny):
    """A run that stopped at the quota after 8 of 12 answers: its metadata and its store."""
    store = tiny.parent / "runs"
    with (
        run_teacher_server(wrong_rate=0.0, faults=Faults(quota_after=8)) as server,
        pytest.raises(BridgekdError),
    ):
        bridgekd.run(tiny, overrides=[f"teacher.base_url={server.base_url}"], **DIRECT)
    return read_metadata(store, "tiny"), store


def status(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["status", "tiny", "--store", str(store)]) == 0
    return capsys.readouterr().out


def test_status_shows_progress_and_cost_of_purchase(stopped_run, capsys, monkeypatch):
    metadata, store = stopped_run
    plan = api.plan_remaining(metadata, store)
    assert plan.train_cost.n_reused == 8
    spent = read_reserved_microusd(store.parent / "ledger.db")
    assert plan.train_cost.reused_microusd == spent
    assert plan.train_cost.total.minimum > spent
    with Ledger(store.parent / "ledger.db"):  # while another process writes
        text = status(store, capsys, monkeypatch)
    assert "query_teacher (random): 8 of up to 12 answers" in text
    assert "evaluate_teacher (random): 0 of up to 5 answers" in text


def test_status_says_why_a_run_cannot_be_planned_any_more(stopped_run, capsys, monkeypatch):
    _, store = stopped_run
    (store.parent / "train.jsonl").unlink()
    assert "Remaining cost unknown: data.train: There is no data file" in status(
        store, capsys, monkeypatch
    )


def print_plan(folder, capsys, monkeypatch, *overrides):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "400")
    sets = [word for override in overrides for word in ("--set", override)]
    assert main(["plan", "task.yaml", *sets]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_plan_names_every_limit_and_where_the_price_is_from(task, capsys, monkeypatch):
    text = print_plan(task, capsys, monkeypatch, "budget.tokens=90000", "hard_limit_usd=3")
    assert "5 queries, $1.00, 90,000 tokens" in text
    assert "hard limit of the ledger is $3.00; $0.00 is spent or reserved" in text
    assert "Price of large: $2.50 in, $10.00 out per million tokens (from the recipe)" in text
    assert "the question (column 'question')" in text
    assert "bounds only" in text
    text = print_plan(task, capsys, monkeypatch, "teacher.expected_completion_tokens=[100,200]")
    assert "from your teacher.expected_completion_tokens" in text and "at most $" in text


@pytest.mark.parametrize("limit", ["budget.usd=1", "hard_limit_usd=1"])
def test_dollars_need_a_price_unless_the_answers_are_recorded(task, limit):
    overrides = ["teacher.price=null", "budget={queries: 5}", limit]
    with pytest.raises(InputError, match="Dollars are limited, but the price of large is unknown"):
        api.plan(task / "task.yaml", overrides=overrides, **DIRECT)
    write_jsonl(task / "r.jsonl", [{"question": "q", "text": "Answer: 1"}])
    replay = ["teacher.transport={name: replay, recordings: r.jsonl}"]
    assert api.plan(task / "task.yaml", overrides=overrides + replay, **DIRECT)


def test_plan_says_that_a_batch_factor_is_applied(task, capsys, monkeypatch):
    price = "{input: 2, output: 8, batch_factor: 0.5}"
    text = print_plan(
        task, capsys, monkeypatch, f"teacher.price={price}", "teacher.transport=batch"
    )
    assert "$1.00 in, $4.00 out per million tokens, batch factor 0.5 applied" in text


def test_a_published_price_is_named_with_its_source_and_date(task):
    from bridgekd.cli.render_plan import format_price
    from bridgekd.plans.plan import PriceInfo

    text = format_price(PriceInfo("gpt-4o", Price(input=2.5, output=10), "2025-08-01", "a page"))
    assert text == (
        "Price of gpt-4o: $2.50 in, $10.00 out per million tokens "
        "(published, a page, 2025-08-01; check it or set teacher.price)."
    )


def test_no_amount_is_rounded_to_the_wrong_side():
    from bridgekd.cli.render_plan import _round_down, _round_up

    assert (_round_down(159_999), _round_up(160_001)) == ("$0.159", "$0.161")
    assert (_round_down(1_999_999), _round_up(12_340_001)) == ("$1.99", "$12.35")
    assert (_round_down(9), _round_up(0)) == ("$0.000009", "$0.00")


def test_recordings_make_the_plan_exact(task):
    rows = [
        {"question": f"What is {i} + 1?", "text": "Answer: 1", "cost_usd": (i + 1) / 1000}
        | {"usage": {"prompt_tokens": 10, "completion_tokens": i + 1}}
        for i in range(30)
    ]
    write_jsonl(task / "recorded.jsonl", rows)
    replay = ["teacher.transport={name: replay, recordings: recorded.jsonl}"]
    plan = api.plan(task / "task.yaml", overrides=replay, **DIRECT)
    forecast = plan.train_cost
    assert (
        forecast.unpaid.minimum
        == forecast.unpaid.ci_low
        == forecast.unpaid.ci_high
        == forecast.unpaid.maximum
        > 0
    )
    assert (forecast.source, plan.needs_consent) == ("recordings", False)
    free = [*replay, "teacher.price=null", "budget.usd=null", "budget.queries=27"]
    plan = api.plan(
        task / "task.yaml", overrides=[*free, "data.validation_size=3"], methods=["bridge"]
    )
    assert plan.train_cost.total.minimum == plan.train_cost.total.maximum
    assert plan.train_cost.total.maximum <= sum(range(1, 31)) * 1000


def test_guess_of_demo_covers_cost_of_demo(tmp_path):
    from bridgekd.sandbox.export import export_world

    recipe = export_world(tmp_path / "demo", n_pool=400, n_instructions=5)
    assert load_recipe(recipe, []).teacher.expected_completion_tokens is not None
    forecast = api.plan(recipe, overrides=["budget.queries=200"]).train_cost
    assert forecast.source == "guess"
    assert (
        forecast.unpaid.ci_low < 159_500 < forecast.unpaid.ci_high < forecast.unpaid.maximum
    )  # 200 answers, see the README
