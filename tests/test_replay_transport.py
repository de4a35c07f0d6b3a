"""Recordings as a teacher: matched by question, billed as recorded."""

import gzip
import hashlib
import json
import sys
import tracemalloc

import pytest

from bridgekd import api
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.budget import Limits
from bridgekd.errors import InputError
from bridgekd.ledger.ledger import Ledger
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Message
from bridgekd.teacher.buy_answers import buy_answers
from bridgekd.teacher.transports import prepare_teacher
from bridgekd.teacher.transports.replay import read_recording_file
from conftest import write_jsonl

PRICE = Price(input=2.0, output=10.0)


def request(number, sample=0):
    question = f"question {number}"
    return TeacherRequest(f"e{number}", number, (Message("user", question),), sample, question)


def replayed(tmp_path, rows, requests, *, limits=None, stop=None, price=PRICE, run="r"):
    write_jsonl(tmp_path / "recordings.jsonl", rows)
    replay = {"name": "replay", "recordings": "recordings.jsonl"}
    teacher = TeacherOptions(model="m", transport=replay, price=price, max_tokens=5)
    with Ledger(tmp_path / "l.db", stop) as ledger:
        return buy_answers(
            requests,
            ledger,
            teacher=prepare_teacher(teacher, tmp_path),
            limits=limits or Limits(),
            run=run,
            api_key="none",
        )


def row(number, **more):
    usage = {"prompt_tokens": 10 * number, "completion_tokens": number}
    return {"question": f"question {number}", "text": f"Answer: {number}", "usage": usage} | more


def test_a_recording_is_billed_its_recorded_tokens_at_the_given_price(tmp_path):
    result = replayed(tmp_path, [row(1), row(20)], [request(20), request(1)])
    assert [c.text for c in result.completions] == ["Answer: 20", "Answer: 1"]
    # longer than max_tokens: the cost of a recording is known, so it needs no bound
    assert [c.cost_microusd for c in result.completions] == [20 * 2 * 10 + 20 * 10, 30]
    again = replayed(tmp_path, [row(1), row(20)], [request(20), request(1)])
    assert (again.completions, again.n_reused) == (result.completions, 2)


def test_without_a_price_the_recorded_cost_counts_and_a_limit_in_dollars_holds(tmp_path):
    rows = [row(n, cost_usd=0.0001) for n in range(1, 9)]
    requests = [request(n) for n in range(1, 9)]
    limits = Limits(microusd=350)
    result = replayed(tmp_path, rows, requests, limits=limits, price=None)
    assert (len(result.completions), result.charged_microusd, result.stop_reason) == (3, 300, "usd")


def test_tokens_are_counted_from_the_texts_where_none_are_recorded(tmp_path):
    result = replayed(tmp_path, [{"question": "question 7", "text": "x" * 41}], [request(7)])
    only = result.completions[0]
    assert (only.n_prompt_tokens, only.n_completion_tokens) == (3, 11)


def test_a_question_without_a_recording_is_a_refused_row_that_costs_nothing(tmp_path):
    result = replayed(tmp_path, [row(1)], [request(1), request(2), request(1, sample=1)])
    assert [c.state for c in result.completions] == ["answered", "refused", "refused"]
    assert result.charged_microusd == result.completions[0].cost_microusd


def test_several_recordings_of_a_question_are_its_samples_in_order(tmp_path):
    rows = [row(1, text="first"), row(1, text="second")]
    result = replayed(tmp_path, rows, [request(1, 1), request(1, 0)])
    assert [c.text for c in result.completions] == ["second", "first"]


def test_a_recording_may_be_named_by_id_and_may_be_a_whole_response(tmp_path):
    body = {"choices": [{"message": {"content": "t", "reasoning_content": "r"}}]}
    rows = [{"id": "e3", "response": json.dumps(body)}, {"id": "e4", "response": body}]
    result = replayed(tmp_path, rows, [request(3), request(4)])
    assert [(c.text, c.reasoning) for c in result.completions] == [("t", "r")] * 2


def test_blanks_around_a_recorded_question_do_not_hide_it(tmp_path):
    recorded = row(1, question=" question 1\n")
    assert replayed(tmp_path, [recorded], [request(1)]).completions[0].text == "Answer: 1"


@pytest.fixture(scope="module")
def opened():
    """Paths that this process opens, as the interpreter reports them."""
    paths = []
    # An audit hook stays until the process ends, so there is one, and `is_on` ends its work.
    is_on = [True]
    sys.addaudithook(lambda event, args: is_on[0] and event == "open" and paths.append(args[0]))
    yield paths
    is_on[0] = False


def test_recordings_are_read_once_for_plan_and_run(tiny, opened):
    recorded = tiny.parent / "recorded.jsonl"
    examples = [json.loads(row) for row in (tiny.parent / "train.jsonl").read_text().splitlines()]
    texts = [f"It is plain to see.\nAnswer: {e['answer']}" for e in examples]
    write_jsonl(
        recorded, [{"id": e["id"], "text": t} for e, t in zip(examples, texts, strict=True)]
    )
    opened.clear()
    sets = [f"teacher.transport={{name: replay, recordings: {recorded}}}"]
    api.plan(tiny, overrides=sets, methods=["direct"])
    api.run(tiny, overrides=sets, methods=["direct"])
    assert [path for path in opened if str(path) == str(recorded)] == [recorded]


@pytest.mark.parametrize("name", ["recorded.jsonl", "recorded.jsonl.gz"])
def test_digest_is_that_of_all_bytes(tmp_path, name):
    text = json.dumps(row(1)).encode() + b"\n\n" * 100_000
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    recordings = read_recording_file(tmp_path / name)
    expected = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()[:16]
    assert (recordings.digest, recordings.find("question", "question 1", 1)) == (expected, None)


def test_memory_does_not_grow_with_recordings(tmp_path):
    write_jsonl(tmp_path / "large.jsonl", [row(n, text="x" * 10_000) for n in range(2000)])
    tracemalloc.start()
    recordings = read_recording_file(tmp_path / "large.jsonl")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recordings.find("question", "question 1999", 0) is not None
    assert kept < 1_000_000


def test_a_changed_file_is_another_teacher(tmp_path):
    first = replayed(tmp_path, [row(1, text="old")], [request(1)])
    second = replayed(tmp_path, [row(1, text="new")], [request(1)])
    assert [c.text for c in first.completions + second.completions] == ["old", "new"]
    assert second.n_reused == 0


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"text": "t"}, "neither 'question' nor 'id'"),
        ({"question": "q"}, "neither 'text' nor 'response'"),
        ({"question": "q", "response": {"x": 1}}, "not a chat completion"),
        ({"question": "q", "response": "{"}, "line 2"),
    ],
)
def test_a_broken_recording_is_named_by_its_line(tmp_path, bad, message):
    with pytest.raises(InputError, match=message) as caught:
        replayed(tmp_path, [row(1), bad], [request(1)])
    assert "line 2" in str(caught.value)


def test_a_run_trains_on_recordings_and_reports_missing_ones(tiny, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tiny.parent
    examples = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    recorded = [
        {"question": e["question"], "text": f"It is plain to see.\nAnswer: {e['answer']}"}
        for e in examples[: len(examples) // 2]
    ]
    write_jsonl(folder / "recorded.jsonl", recorded)
    replay = "transport: {name: replay, recordings: recorded.jsonl}"
    text = tiny.read_text().replace("provider: sandbox", replay)
    text = text.replace("  api_key_env: null\n", "").replace("evaluate: {teacher_queries: 5}", "")
    tiny.write_text(text)
    planned, notes = api.plan(tiny).purchases[0], []
    outcome = api.run(tiny, note=notes.append)
    journal = json.loads((folder / "runs" / "tiny.json").read_text())
    folder_name = next(e["folder"] for e in journal["stages"] if e["stage"] == "query_teacher")
    stats = json.loads((folder / "runs" / folder_name / "manifest.json").read_text())["stats"]
    assert stats["spend_microusd"] > 0
    assert outcome.metrics.arms["bridge"].n_queries == stats["n_queries"] == 12
    n_missing = stats["n_unrecorded"]
    assert (
        0 < n_missing < 12 and planned.n_unrecorded > 12
    )  # in the full pool: none is selected yet
    assert any(note.startswith(f"{n_missing} of the 12 queries") for note in notes)
    assert "unrecorded" in outcome.report.read_text()


def batch_line(custom_id, text, status=200, response=None):
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}}]
    body = {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    body = body if status == 200 else {"error": {"message": text}}
    response = response or {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": custom_id, "response": response, "error": None}


LOST = {"response": None, "error": {"code": "batch_expired", "message": "It expired."}}


def test_the_output_file_of_a_batch_is_joined_by_the_id_of_a_row(tmp_path):
    failed = [
        batch_line("e2", "bad", 400),
        batch_line("e3", "") | LOST,
        batch_line("e4", "x", 500),
    ]
    rows = [batch_line("e1", "one"), *failed, batch_line("e4", "four")]
    result = replayed(tmp_path, rows, [request(n) for n in (1, 2, 3, 4)])
    found = [(c.state, c.text) for c in result.completions]
    assert found == [("answered", "one"), ("refused", ""), ("refused", ""), ("answered", "four")]
    assert result.charged_microusd == 2 * (7 * 2 + 3 * 10)


def batch_task(task, rows, requests, **prompt):
    write_jsonl(task / "output.jsonl", rows)
    write_jsonl(
        task / "input.jsonl",
        [
            {
                "custom_id": i,
                "method": "POST",
                "body": {"messages": [{"role": "user", "content": q}]},
            }
            for i, q in requests
        ],
    )
    transport = "{name: replay, recordings: output.jsonl, batch_input: input.jsonl}"
    sets = [f"teacher.transport={transport}", "data.validation_size=0", "budget.queries=100%"]
    sets += [f"teacher.prompt.{name}='{text}'" for name, text in prompt.items()]
    plan = api.plan(task / "task.yaml", overrides=sets, methods=["direct"])
    return plan.purchases[0].n_unrecorded


def test_the_output_file_of_a_batch_is_joined_by_the_question_of_its_request(task):
    rows = [batch_line(f"job-{i}", "Answer: 1") for i in range(30)]
    asked = [(f"job-{i}", f"What is {i} + 1?") for i in range(30)]
    assert batch_task(task, rows, asked) == 0
    assert batch_task(task, rows[:20], asked) == 10
    framed = [(i, f"Think. {q} ") for i, q in asked]
    assert batch_task(task, rows, framed) == 30
    assert batch_task(task, rows, framed, template="Think. {question}") == 0


@pytest.mark.parametrize(
    "rows, requests, message",
    [
        ([("b", "x")], [("a", "q")], r"output.jsonl line 1: The custom_id 'b' is not in .*input"),
        ([("a", "x")], [("a", "q"), ("a", "r")], r"input.jsonl line 2: .* 'a' is there twice"),
        ([("a", "x")], [(5, "q")], r"input.jsonl line 1 is no request of a batch"),
        ([("a", "x")], [("a", ["q"])], r"input.jsonl line 1 is no request of a batch"),
        ([("a", "", 200, 5)], [("a", "q")], r"line 1: 'response' is 5, not an object"),
        (
            [("a", "no such model", 404)],
            [("a", "q")],
            r"output.jsonl line 1: The request failed: .*no such model",
        ),
    ],
)
def test_files_that_are_no_batch_are_refused(task, rows, requests, message):
    with pytest.raises(InputError, match=message):
        batch_task(task, [batch_line(*row) for row in rows], requests)


def test_another_input_file_is_another_teacher(tmp_path):
    rows = [batch_line("a", "one")]
    write_jsonl(tmp_path / "o.jsonl", rows)
    digests = set()
    for question in ("q", "r"):
        body = {"messages": [{"role": "user", "content": question}]}
        write_jsonl(tmp_path / "i.jsonl", [{"custom_id": "a", "body": body}])
        recordings = read_recording_file(tmp_path / "o.jsonl", tmp_path / "i.jsonl")
        assert recordings.find("question", question, 0) is not None
        digests.add(recordings.digest)
    assert len(digests) == 2
