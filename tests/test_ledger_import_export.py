"""Export and import are complete or not done, and give requests the key that a run computes."""

import csv
import json
import re
import shlex
import tracemalloc
from pathlib import Path

import pytest

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.request_key import TeacherRequest, build_request, compute_request_key
from bridgekd.cli.main import main
from bridgekd.cost.budget import Limits
from bridgekd.errors import InputError, OverbilledError
from bridgekd.ledger.export import export_ledger
from bridgekd.ledger.import_answers import ImportCounts, import_answers
from bridgekd.ledger.imported_request import build_request_from_body
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.spend import iter_attempts, open_snapshot, sum_spend
from bridgekd.ledger.verify import verify
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Message
from bridgekd.teacher.buy_answers import buy_answers
from conftest import write_jsonl
from faulty_teacher import run_teacher_server

PRICE = Price(input=2, output=3, cached_input=1)
USAGE = {"prompt_tokens": 10, "completion_tokens": 20}
BODY = {"model": "m", "messages": [{"role": "user", "content": "2 + 2"}], "max_tokens": 50}


def call(n=0):
    return BODY | {"provider": "p", "sample_index": n}


def raw(usage=USAGE, reason="stop"):
    choices = [{"message": {"content": "Answer: 4"}, "finish_reason": reason}]
    return json.dumps({"choices": choices} | ({"usage": usage} if usage else {}))


def row(**changes):
    return {"request": BODY, "response": raw()} | changes


def fill(ledger):
    """Add one attempt of every state: final ones first, in the order of their sample indices."""

    def attempt(text, state, cost, price=PRICE, amount=900):
        n = ledger._connection("write").execute("SELECT count(*) FROM attempts").fetchone()[0]
        attempt_id = ledger.reserve(call(n), run="r", purpose="measure", reserve_microusd=amount)
        if text:
            ledger.record(attempt_id, text, price=price, request_id="req")
        if cost is None:
            ledger.release(attempt_id, state)
        else:
            ledger.settle(attempt_id, state, cost)

    attempt(raw(), "answered", RequestCost(10, 20, 80))
    attempt(raw(reason="length"), "truncated", RequestCost(10, 20, 80))
    attempt(raw(None), "answered", RequestCost(149, 50, 900))
    attempt(raw(USAGE | {"cost": 0.00007}), "answered", RequestCost(10, 20, 70), None)
    attempt('{"error": {"message": "no"}}', "refused", RequestCost())
    attempt("", "refused", RequestCost())
    with pytest.raises(OverbilledError):
        attempt(raw(), "answered", RequestCost(10, 20, 80), PRICE, 79)
    ledger.import_answer(call(7), raw(None), price=None, run="old", cost_microusd=123)
    attempt("", "failed", None)
    attempt("", "unknown", None)
    attempt("<html>", "unparsable", None)
    ledger.reserve(call(11), run="r", purpose="train", reserve_microusd=5)


@pytest.fixture
def path(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        fill(ledger)
    return tmp_path / "l.db"


def finals(path):
    with Ledger(path) as ledger:
        stored = [ledger.find_answer(compute_request_key(call(n))) for n in range(12)]
    return [s and (s.key, s.state, s.raw_response, s.cost) for s in stored]


def test_imported_export_has_every_answer_at_its_cost(path, tmp_path):
    assert export_ledger(path, tmp_path / "all.jsonl") == 12
    new = tmp_path / "new.db"
    assert import_answers(tmp_path / "all.jsonl", new) == ImportCounts(8, 0, 4)
    assert finals(new) == finals(path)
    assert sum(f is not None for f in finals(new)) == 8
    with Ledger(new) as ledger:
        assert ledger.reserved_microusd() == 0
    groups = {(r.run, r.purpose): r.n_attempts for r in sum_spend(new, ("run", "purpose"))}
    assert groups == {("old", "train"): 1, ("r", "measure"): 7}
    assert verify(new).errors == ()


def test_known_answers_are_counted_and_not_imported_again(path, tmp_path):
    export_ledger(path, tmp_path / "all.jsonl")
    before = finals(path)
    assert import_answers(tmp_path / "all.jsonl", path, run="again") == ImportCounts(0, 8, 4)
    assert finals(path) == before
    assert all(row.run != "again" for row in sum_spend(path))


def test_first_of_two_lines_for_one_request_is_imported(tmp_path):
    lines = [row(cost_usd=0.5), row(cost_usd=0.25)]
    file = write_jsonl(tmp_path / "f.jsonl", lines)
    assert import_answers(file, tmp_path / "l.db") == ImportCounts(1, 1, 0)
    (spent,) = sum_spend(tmp_path / "l.db")
    assert (spent.imported_microusd, spent.reserved_microusd) == (500_000, 0)


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ({"max_tokens": 50, "temperature": 0}, {}),
        ({"max_tokens": 50, "temperature": 0.0, "stream": False, "n": 1, "seed": None}, {}),
        (
            {"max_tokens": 50, "temperature": 1, "top_p": 1, "seed": 3, "stop": "\n"},
            {"temperature": 1.0, "top_p": 1.0, "seed": 3, "stop": ["\n"]},
        ),
        ({"max_completion_tokens": 50, "reasoning_effort": "low"}, {"model": "o3"}),
        (
            {"max_tokens": 50, "temperature": 0, "response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"max_tokens": 50, "temperature": 0, "thinking": {"type": "disabled"}},
            {"extra": {"thinking": {"type": "disabled"}}},
        ),
        (
            {"max_tokens": 50, "temperature": 0, "provider": {"only": ["x"]}},
            {"extra": {"provider": {"only": ["x"]}}},
        ),
    ],
)
def test_plain_openai_body_gets_the_key_of_a_run(body, settings):
    effort = {"reasoning_effort": "low"} if "reasoning_effort" in body else {}
    teacher = TeacherOptions(**({"model": "m", "max_tokens": 50} | settings | effort))
    messages = (Message("system", "Reason."), Message("user", "2 + 2"))
    request = build_request(teacher, TeacherRequest("id", 0, messages))
    sent = [{"role": m.role, "content": m.content} for m in messages]
    recorded = build_request_from_body({"model": teacher.model, "messages": sent} | body)
    assert compute_request_key(recorded) == compute_request_key(request)


def test_extra_must_be_an_object():
    with pytest.raises(ValueError, match=r"request.extra is 'x'\. It must be an object"):
        build_request_from_body(
            {"model": "m", "messages": [{"role": "user", "content": "q"}], "extra": "x"}
        )


def test_imported_answer_is_reused_and_charged_to_budget(tmp_path):
    question = TeacherRequest("e", 0, (Message("user", "2 + 2"),))
    other = TeacherRequest("f", 1, (Message("user", "3 + 3"),))
    with run_teacher_server(lambda question, seed: "Answer: 4") as server:
        teacher = TeacherOptions(
            provider="sandbox", model="m", base_url=server.base_url, api_key_env=None,
            max_tokens=50, price=PRICE,
        )  # fmt: skip
        recorded = row(request=build_request(teacher, question), price={"input": 2, "output": 3})
        import_answers(write_jsonl(tmp_path / "f.jsonl", [recorded]), tmp_path / "l.db")
        with Ledger(tmp_path / "l.db", hard_limit_microusd=10_000) as ledger:
            # A request may cost 448. With the 80 of the first, no budget is left for it.
            done = buy_answers(
                [question, other], ledger, teacher=teacher, limits=Limits(microusd=500), run="r",
                api_key="none",
            )  # fmt: skip
        assert (done.n_reused, done.n_requests_sent, done.charged_microusd) == (1, 0, 80)
        assert done.completions[0].text == "Answer: 4"
        assert (done.stop_reason, sum(server.calls.values())) == ("usd", 0)


@pytest.mark.parametrize(
    ("line", "bill"),
    [
        (row(), RequestCost(10, 20, 0)),
        (row(price={"input": 2, "output": 3}), RequestCost(10, 20, 80)),
        (row(cost_usd=0.0000015), RequestCost(10, 20, 2)),
        (row(response=raw(USAGE | {"cost": 0.5})), RequestCost(10, 20, 500_000)),
        (row(response=raw(USAGE | {"cost": 0.5}), cost_usd=0.25), RequestCost(10, 20, 250_000)),
        (row(response=json.loads(raw()), cost_usd=1), RequestCost(10, 20, 1_000_000)),
        (row(response=raw(None), cost_usd=0.1), RequestCost(149, 50, 100_000)),
        (row(response=raw(None), price={"input": 2, "output": 3}), RequestCost(149, 50, 448)),
    ],
)
def test_imported_answer_has_the_cost_in_its_line(tmp_path, line, bill):
    import_answers(write_jsonl(tmp_path / "f.jsonl", [line]), tmp_path / "l.db")
    with Ledger(tmp_path / "l.db") as ledger:
        assert ledger.find_answer(compute_request_key(build_request_from_body(BODY))).cost == bill
    assert verify(tmp_path / "l.db").errors == ()


BAD = [
    ({"answer": 1}, "Unknown field 'answer'. Known: request, response, price, cost_usd"),
    ({"request": "2 + 2"}, "The request is missing. Add the JSON object"),
    ({"request": BODY | {"model": 3}}, "request.model is 3. It must be a name"),
    ({"request": BODY | {"messages": []}}, "request.messages must be a list of at"),
    ({"request": BODY | {"messages": [{"role": "user"}]}}, "must have a role and a content"),
    ({"request": BODY | {"sample_index": -1}}, "sample_index is -1. It must be a whole"),
    ({"request": BODY | {"max_tokens": "50"}}, "max_tokens is '50'. It must be a whole number"),
    ({"request": BODY | {"n": 2}}, "n is 2. Give each answer its own line"),
    ({"request": BODY | {"seed": float("nan")}}, "not JSON compliant"),
    ({"request": BODY | {"model": "\ud800"}}, "Half of a surrogate"),
    (
        {"request": BODY | {"max_tokens": None}, "response": raw(None)},
        "number of tokens is unknown",
    ),
    ({"response": None}, "The response is not a chat completion: None"),
    ({"response": "<html>"}, "The response is not a chat completion: '<html>'"),
    ({"response": {"error": {"message": "quota"}}}, "The response is not a chat completion"),
    (
        {"response": raw({"prompt_tokens": 10**30, "completion_tokens": 1})},
        "tokens is above the maximum of",
    ),
    ({"price": {"input": 1}}, "price.output: Field required"),
    ({"price": {"input": 1, "output": -1}}, "price.output: Input should be greater than or equal"),
    ({"price": {"input": 1, "output": 1, "batch_factor": 0.5}}, "batch_factor is not a price"),
    ({"price": {"input": 1, "output": 1}, "cost_usd": 1}, "a price and a cost_usd. Give one"),
    ({"cost_usd": -1}, "cost_usd is -1. It must be at least 0 dollars"),
    ({"cost_usd": True}, "cost_usd is True. It must be at least 0 dollars"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_wrong_line_is_named_and_nothing_is_imported(tmp_path, change, message):
    lines = [row(request=BODY | {"sample_index": 9}), row(**change)]
    file = write_jsonl(tmp_path / "f.jsonl", lines)
    with pytest.raises(InputError) as caught:
        import_answers(file, tmp_path / "l.db")
    assert "f.jsonl line 2: " in str(caught.value) and message in str(caught.value)
    assert "Fix or remove the line" in str(caught.value)
    assert not (tmp_path / "l.db").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": call(8)}, "does not match the request"),
        ({"state": "anwsered"}, "The state 'anwsered' is not one of a ledger"),
        ({"state": 2}, "The state 2 is not one of a ledger"),
        ({"state": "truncated"}, "The state is 'truncated', but the response is 'answered'"),
        ({"response": None}, "The state is 'answered', but the response is 'unparsable'"),
        ({"cost_microusd": None}, "cost_microusd is None. It must be a whole number"),
        ({"purpose": "fun"}, "purpose is 'fun'. It must be train or measure"),
        ({"run": None}, "run is None. It must be a name"),
    ],
)
def test_changed_line_of_export_is_refused(path, tmp_path, change, message):
    export_ledger(path, tmp_path / "all.jsonl")
    first = json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])
    file = write_jsonl(tmp_path / "f.jsonl", [first | change])
    with pytest.raises(InputError, match=r"f\.jsonl line 1: .*" + message):
        import_answers(file, tmp_path / "new.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"request": \n', "line 1: Broken JSON"),
        ("[1]\n", "line 1: Expected an object"),
        ("\n", "has no lines"),
        (None, "Cannot read"),
    ],
)
def test_file_without_json_lines_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "f.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        import_answers(tmp_path / "f.jsonl", tmp_path / "l.db")
    assert not (tmp_path / "l.db").exists()


def test_table_has_row_for_every_attempt_and_no_texts(path, tmp_path):
    assert export_ledger(path, tmp_path / "all.csv") == 12
    text = (tmp_path / "all.csv").read_text()
    assert "2 + 2" not in text and "Answer" not in text
    rows = list(csv.DictReader(text.splitlines()))
    with open_snapshot(path) as db:
        assert [r["key"] for r in rows] == [attempt.key for attempt in iter_attempts(db)]
    first, open_one = rows[0], rows[-1]
    assert (first["run"], first["model"], first["state"]) == ("r", "m", "answered")
    assert (first["n_prompt_tokens"], first["cost_microusd"], first["imported"]) == (
        "10",
        "80",
        "0",
    )
    assert (open_one["reserve_microusd"], open_one["reserved_microusd"]) == ("5", "5")
    assert (open_one["cost_microusd"], open_one["settled_at"]) == ("", "")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_export_is_complete_or_not_there_and_replaces_only_with_force(path, tmp_path, suffix):
    to = tmp_path / f"all.{suffix}"
    to.write_text("mine")
    with pytest.raises(InputError, match=f"all.{suffix} exists already.*--force"):
        export_ledger(path, to)
    assert to.read_text() == "mine"
    with Ledger(path) as ledger:
        ledger._connection("write").execute("UPDATE attempts SET request = '{' WHERE id = 9")
    if suffix == "jsonl":
        with pytest.raises(InputError, match="attempt 9 has broken JSON"):
            export_ledger(path, to, force=True)
        assert to.read_text() == "mine"
    else:
        assert export_ledger(path, to, force=True) == 12
        assert to.read_text() != "mine"
    assert not list(tmp_path.glob("*.writing"))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("all.txt", r"must end in \.csv or \.jsonl"),
        ("nowhere/all.csv", r"Cannot write .*nowhere/all.csv: No such file or directory\. The"),
    ],
)
def test_unwritable_export_is_refused(path, tmp_path, to, message):
    with pytest.raises(InputError, match=message):
        export_ledger(path, tmp_path / to)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("to", ["l.jsonl", "link.csv", "sub/../l.jsonl"])
def test_ledger_is_never_replaced_by_its_export(path, tmp_path, to, force):
    (tmp_path / "sub").mkdir()
    ledger = path.rename(tmp_path / "l.jsonl")
    (tmp_path / "link.csv").symlink_to(ledger)
    before = ledger.read_bytes()
    with pytest.raises(InputError, match="is the ledger itself"):
        export_ledger(ledger, tmp_path / to, force=force)
    assert ledger.read_bytes() == before


def test_large_ledger_needs_little_memory(tmp_path):
    n, question = 1500, [{"role": "user", "content": "x" * 8000}]  # 12 MB of texts
    with open(tmp_path / "f.jsonl", "w") as file:
        for k in range(n):
            line = row(request=BODY | {"messages": question, "sample_index": k})
            file.write(json.dumps(line) + "\n")
    tracemalloc.start()
    import_answers(tmp_path / "f.jsonl", tmp_path / "l.db")
    export_ledger(tmp_path / "l.db", tmp_path / "all.jsonl")
    export_ledger(tmp_path / "l.db", tmp_path / "all.csv")
    assert verify(tmp_path / "l.db").n_attempts == n
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def test_commands_report_their_results(path, tmp_path, capsys, monkeypatch):
    def run(*arguments):
        code = main(["ledger", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    monkeypatch.chdir(tmp_path)
    code, text = run("export", "--to", "all.jsonl", "--ledger", "l.db")
    assert code == 0 and "Wrote 12 attempts to all.jsonl" in text
    code, text = run("import", "all.jsonl", "--run", "copy")
    assert code == 0 and "ledger.db: 8 imported, 0 known already, 4 skipped" in text
    assert {r.run for r in sum_spend(tmp_path / "ledger.db")} == {"copy"}
    code, text = run("--ledger", "l.db", "export", "--to", "all.jsonl")
    assert code == 2 and "all.jsonl exists already" in text
    assert run("export", "--to", "all.jsonl", "--force")[0] == 0
    assert json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])["run"] == "copy"
    code, text = run("export", "--to", "x.csv", "--ledger", "no.db")
    assert code == 2 and "no ledger at no.db" in text
    code, text = run("import", "no.jsonl")
    assert code == 2 and "Cannot read no.jsonl" in text
    (tmp_path / "bad.jsonl").write_text("{}\n")
    code, text = run("import", "bad.jsonl")
    assert code == 2 and "bad.jsonl line 1: The request is missing" in text


def test_every_command_of_the_document_works_on_its_example(path, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "ledger.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (tmp_path / "answers.jsonl").write_text(example)
    path.rename(tmp_path / "ledger.db")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert (program, main(arguments)) == ("bridgekd", 0), line
    teacher = TeacherOptions(model="gpt-4o", max_tokens=512)
    request = build_request(teacher, TeacherRequest("x", 0, (Message("user", "2 + 2"),)))
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.find_answer(compute_request_key(request)).cost == RequestCost(10, 4, 65)


@pytest.mark.parametrize("command", [(), ("show",), ("export",), ("import",), ("verify",)])
def test_help_of_every_command_has_example(command, capsys):
    assert main(["ledger", *command, "--help"]) == 0
    assert f"Example: {' '.join(['bridgekd ledger', *command])}" in capsys.readouterr().out


def test_line_can_have_text_and_usage_instead_of_response(tmp_path):
    request = {"model": "gpt-4o", "messages": [{"role": "user", "content": "2 + 2"}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    line = {"request": request, "text": "4", "usage": usage}
    path = write_jsonl(tmp_path / "f.jsonl", [line])
    import_answers(path, tmp_path / "l.db", default_price="published")
    assert [row.imported_microusd for row in sum_spend(tmp_path / "l.db")] == [65]
    other = write_jsonl(tmp_path / "g.jsonl", [line | {"request": request | {"model": "palm"}}])
    with pytest.raises(InputError, match="no published price of 'palm'"):
        import_answers(other, tmp_path / "l.db", default_price="published")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_of_a_server_is_no_formula_in_a_table(tmp_path, start):
    text = f'{start}HYPERLINK("http://x","y")'
    with Ledger(tmp_path / "l.db") as ledger:
        body = call() | {"model": text, "provider": text}
        attempt_id = ledger.reserve(body, run=text, purpose="train", reserve_microusd=5)
        ledger.record(attempt_id, raw(), price=None, request_id=text)
    export_ledger(tmp_path / "l.db", tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        (cells,) = csv.DictReader(file)
    for name in ("model", "provider", "run", "request_id"):
        assert cells[name] == f"'{text}"
    export_ledger(tmp_path / "l.db", tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text())["request_id"] == text
