"""Batches through the openai package: every line has a result, at half the price."""

import json
import time
from contextlib import contextmanager

import openai
import pytest

from bridgekd.cost.request_cost import compute_cost_microusd
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL, estimate_tokens, hash_body
from faulty_teacher import BATCH_PRICE, SANDBOX_PRICE, BatchFaults, Faults, run_teacher_server

URL = "/v1/chat/completions"


def scripted(question, seed):
    return f"We read {question} " + "so " * (seed % 40) + "Answer: 4"


def body(n, **more):
    messages = [{"role": "user", "content": f"question {n}"}]
    return {"model": SANDBOX_MODEL, "messages": messages, "max_tokens": 90, **more}


def task(n, **more):
    line = {"custom_id": f"row-{n}", "method": "POST", "url": URL, "body": body(n)}
    return line | more


def jsonl(lines):
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()


@contextmanager
def open_client(**options):
    """A running server, and a client of it without retries."""
    with (
        run_teacher_server(scripted, **options) as server,
        openai.OpenAI(
            base_url=server.base_url, api_key="none", max_retries=0, timeout=10
        ) as client,
    ):
        yield server, client


def submit(client, lines, **more):
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=URL, completion_window="24h", **more
    )


def finished(client, batch):
    """The batch after its end, and all of its states."""
    seen = [batch.status]
    deadline = time.monotonic() + 20
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < deadline, seen
        time.sleep(0.005)
        batch = client.batches.retrieve(batch.id)
        seen += [batch.status] * (batch.status != seen[-1])
    return batch, seen


def lines_of(client, file_id):
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


def results(client, batch):
    return lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)


def test_batch_gives_the_answers_of_live_requests():
    with open_client(seed=3) as (server, client):
        batch, _ = finished(client, submit(client, [task(n) for n in range(20)]))
        output, errors = results(client, batch)
        assert (batch.status, errors) == ("completed", {})
        assert list(output) != [f"row-{n}" for n in range(20)]  # the order is the server's
        assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
        for n in range(20):
            line = output[f"row-{n}"]
            assert line["error"] is None
            assert line["response"]["status_code"] == 200
            live = client.chat.completions.create(**body(n))
            assert (
                line["response"]["body"]["choices"]
                == live.model_dump(include={"choices"}, exclude_unset=True)["choices"]
            )
        assert set(server.calls.values()) == set(server.served.values()) == {2}


def test_batch_costs_half_of_live_rounded_up_per_request():
    with open_client() as (server, client):
        batch, _ = finished(client, submit(client, [task(n) for n in range(7)]))
        usages = [line["response"]["body"]["usage"] for line in results(client, batch)[0].values()]
        tokens = [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages]
        assert (BATCH_PRICE.input, BATCH_PRICE.output) == (
            SANDBOX_PRICE.input / 2, SANDBOX_PRICE.output / 2,
        )  # fmt: skip
        assert server.billed == sum(compute_cost_microusd(BATCH_PRICE, *pair) for pair in tokens)
        assert server.billed < sum(compute_cost_microusd(SANDBOX_PRICE, *pair) for pair in tokens)
        assert server.calls == server.served == {hash_body(body(n)): 1 for n in range(7)}


def test_batch_has_its_states_at_their_times():
    with open_client(batch_faults=BatchFaults(batch_s=0.6)) as (server, client):
        began = time.monotonic()
        batch, seen = finished(client, submit(client, [task(n) for n in range(4)]))
        assert time.monotonic() - began >= 0.6
        states = ["validating", "in_progress", "finalizing", "completed"]
        assert seen == [state for state in states if state in seen]
        assert {"validating", "in_progress"} <= set(seen)
        assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
        assert server.get_stats()["n_served"] == 4


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        (b"", "empty_file", None),
        (jsonl([task(0)]) + b"{broken\n", "invalid_json_line", 2),
        ([task(0), task(1), task(1)], "duplicate_custom_id", 3),
        ([task(0, body=body(0, model="other"))], "model_not_found", 1),
        ([task(0, url="/v1/embeddings")], "url_mismatch", 1),
        ([{"custom_id": "a", "method": "POST", "url": URL}], "missing_required_parameter", 1),
    ],
)
def test_batch_with_a_bad_line_fails_completely_and_bills_nothing(lines, code, line):
    with open_client() as (server, client):
        batch, _ = finished(client, submit(client, lines))
        assert batch.status == "failed"
        assert [(e.code, e.line) for e in batch.errors.data] == [(code, line)]
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
        assert (server.billed, server.calls.total()) == (0, 0)


def test_expired_requests_are_in_the_error_file_and_not_billed():
    with open_client(batch_faults=BatchFaults(expire=0.5), seed=2) as (server, client):
        batch, _ = finished(client, submit(client, [task(n) for n in range(20)]))
        output, errors = results(client, batch)
        assert batch.status == "expired"
        assert output.keys() | errors.keys() == {f"row-{n}" for n in range(20)}
        assert not output.keys() & errors.keys()
        assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}
        assert {line["response"] for line in errors.values()} == {None}
        assert server.served.total() == len(output) == batch.request_counts.completed
        assert 0 < len(output) < 20 == server.calls.total()


def test_server_error_has_a_line_and_is_drawn_again_next_time():
    with open_client(batch_faults=BatchFaults(error=0.5), seed=1) as (server, client):
        rows = [task(n) for n in range(20)]
        batch, _ = finished(client, submit(client, rows))
        output, errors = results(client, batch)
        assert batch.status == "completed"
        assert batch.request_counts.failed == len(errors) == 20 - len(output)
        assert {line["response"]["status_code"] for line in errors.values()} == {500, 503}
        again, _ = finished(client, submit(client, [r for r in rows if r["custom_id"] in errors]))
        assert 0 < len(results(client, again)[0]) < len(errors)
        assert server.served.total() == len(output) + again.request_counts.completed


def test_missing_line_is_billed_and_in_neither_file():
    with open_client(batch_faults=BatchFaults(missing=0.4), seed=1) as (server, client):
        batch, _ = finished(client, submit(client, [task(n) for n in range(20)]))
        output, errors = results(client, batch)
        assert (batch.status, errors) == ("completed", {})
        assert 0 < len(output) < 20
        assert server.served.total() == batch.request_counts.completed == 20


def test_faults_of_the_answer_apply_to_batches():
    with open_client(faults=Faults(refuse=0.3, truncate=0.3, no_usage=0.3, error=1.0), seed=1) as (
        _,
        client,
    ):
        batch, _ = finished(client, submit(client, [task(n) for n in range(20)]))
        output, errors = results(client, batch)
        refused = [line["response"] for line in errors.values()]
        assert {(r["status_code"], r["body"]["error"]["code"]) for r in refused} == {
            (400, "content_filter")
        }
        bodies = [line["response"]["body"] for line in output.values()]
        assert {b["choices"][0]["finish_reason"] for b in bodies} == {"stop", "length"}
        assert {"usage" in b for b in bodies} == {True, False}


def test_overbilled_line_is_billed_as_reported():
    with open_client(faults=Faults(overbill=1.0)) as (server, client):
        batch, _ = finished(client, submit(client, [task(0)]))
        answer = results(client, batch)[0]["row-0"]["response"]["body"]
        n_completion = answer["usage"]["completion_tokens"]
        assert n_completion > 90 * estimate_tokens(answer["choices"][0]["message"]["content"])
        assert server.billed == compute_cost_microusd(BATCH_PRICE, 2, n_completion)


def test_same_seed_gives_same_batch():
    def outcome(seed):
        faults = BatchFaults(expire=0.2, error=0.2, missing=0.2)
        with open_client(batch_faults=faults, seed=seed) as (_, client):
            batch, _ = finished(client, submit(client, [task(n) for n in range(15)]))
            return [list(lines) for lines in results(client, batch)]

    assert outcome(1) == outcome(1) != outcome(2)


def test_cancelled_batch_keeps_and_bills_finished_requests():
    with open_client(batch_faults=BatchFaults(batch_s=2.0, expire=0.3)) as (server, client):
        batch = submit(client, [task(n) for n in range(40)])
        while client.batches.retrieve(batch.id).request_counts.completed < 3:
            time.sleep(0.005)
        assert client.batches.cancel(batch.id).status == "cancelling"
        batch, seen = finished(client, batch)
        assert seen[-1] == "cancelled"
        output, errors = results(client, batch)
        assert 3 <= len(output) < 40
        assert errors == {}
        assert server.served.total() == len(output) == batch.request_counts.completed
        assert batch.request_counts.total == 40
        with pytest.raises(openai.ConflictError, match="cancelled"):
            client.batches.cancel(batch.id)


def test_lost_create_is_processed_and_has_its_metadata():
    with open_client(batch_faults=BatchFaults(lose_create=1)) as (server, client):
        with pytest.raises(openai.APIConnectionError):
            submit(client, [task(0)], metadata={"part": "a"})
        (found,) = client.batches.list()
        assert found.metadata == {"part": "a"}
        assert finished(client, found)[0].status == "completed"
        assert server.served.total() == 1
        assert submit(client, [task(1)]).status == "validating"


def test_lost_upload_is_kept():
    with open_client(batch_faults=BatchFaults(lose_upload=1)) as (_, client):
        with pytest.raises(openai.APIConnectionError):
            client.files.create(file=("lost.jsonl", jsonl([task(0)])), purpose="batch")
        (found,) = client.files.list()
        assert found.filename == "lost.jsonl"
        assert client.files.content(found.id).content == jsonl([task(0)])


def test_batches_are_listed_newest_first_in_pages():
    with open_client() as (_, client):
        made = [submit(client, [task(n)], metadata={"n": str(n)}) for n in range(5)]
        assert [b.metadata["n"] for b in client.batches.list(limit=2)] == list("43210")
        page = client.batches.list(limit=2)
        assert (len(page.data), page.has_more) == (2, True)
        page = client.batches.list(limit=2, after=made[1].id)
        assert ([b.id for b in page.data], page.has_more) == ([made[0].id], False)
        with pytest.raises(openai.BadRequestError):
            client.batches.list(after="batch_unknown")


def test_file_is_returned_byte_for_byte_until_it_is_deleted():
    content = jsonl([task(0, body=body("é \u2028 \r\n --x"))]) + b"--boundary\r\n\r\nend"
    with open_client() as (_, client):
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        assert client.files.content(file.id).content == content
        assert client.files.retrieve(file.id).bytes == len(content)
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(file.id)


def test_invalid_create_is_refused():
    with open_client() as (_, client):
        file = client.files.create(file=("in.jsonl", jsonl([task(0)])), purpose="batch")
        right = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
        for wrong in (
            {"input_file_id": "file-none"},
            {"endpoint": "/v1/embeddings"},
            {"completion_window": "1h"},
        ):
            with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
                client.batches.create(**(right | wrong))
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve("batch_none")


def test_files_and_batches_need_the_key():
    with (
        run_teacher_server(scripted, api_key="right") as server,
        openai.OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError):
            client.files.list()
        with pytest.raises(openai.AuthenticationError):
            client.batches.list()


def test_closing_server_does_not_wait_for_a_batch():
    began = time.monotonic()
    with open_client(batch_faults=BatchFaults(batch_s=600)) as (_, client):
        submit(client, [task(0)])
    assert time.monotonic() - began < 10
