"""Batches that fail, in part or as a whole, and servers that do."""

import json
import logging
import sqlite3
import traceback

import pytest

from batch_fakes import (
    RESERVE,
    BatchServerSpy,
    buy_batch,
    check_clean_exit,  # noqa: F401
    make_other_requests,
    n_open,
    stop_purchase,
)
from bridgekd.errors import OverbilledError, TeacherUnavailableError
from bridgekd.ledger.verify import verify
from faulty_teacher import BatchFaults, Faults, run_teacher_server
from test_live_transport import CANARY, counts, held, pool, words

pytestmark = pytest.mark.usefixtures("check_clean_exit")


def test_what_expired_or_failed_is_sent_again_in_the_next_batch(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(
        words, batch_faults=BatchFaults(expire=0.3, error=0.3), seed=2
    ) as server:
        spy = BatchServerSpy(server)
        result = buy_batch(path, server, pool(60), max_attempts=20)
        assert len(result.completions) == 60
        assert spy.seen["POST batches"] == max(server.calls.values()) > 2
        assert set(server.served.values()) == {1}
        assert counts(path) == {"answered": 60, "failed": server.calls.total() - 60}
        assert result.charged_microusd == server.billed == held(path)


def test_an_answer_that_is_missing_stays_reserved_and_is_sent_again(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(missing=0.3), seed=2) as server:
        result = buy_batch(path, server, pool(40), max_attempts=20)
        n_unknown = counts(path)["unknown"]
        assert server.served.total() == 40 + n_unknown > 40
        assert held(path) == result.charged_microusd + RESERVE * n_unknown >= server.billed


@pytest.mark.parametrize(("fault", "state"), [("expire", "failed"), ("missing", "unknown")])
def test_a_batch_that_never_answers_ends_after_max_tries(tmp_path, fault, state):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(**{fault: 1.0})) as server:
        with pytest.raises(
            TeacherUnavailableError, match=r"no answer for example e\d+ in 2 attempts"
        ):
            buy_batch(path, server, pool(10), max_attempts=2)
        assert counts(path) == {state: 20}
        assert held(path) == 20 * RESERVE * (state == "unknown")


def test_a_batch_that_is_not_taken_stops_with_nothing_reserved(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, models=("others",)) as server:
        with pytest.raises(TeacherUnavailableError, match=r"rejected the batch .*does not exist"):
            buy_batch(path, server, pool(20))
        assert (counts(path), held(path), server.calls.total()) == ({"failed": 20}, 0, 0)
        assert n_open(path) == 0


def test_a_wrong_key_stops_at_the_upload(tmp_path):
    refused = pytest.raises(TeacherUnavailableError, match=r"rejected a request without a key .401")
    with run_teacher_server(words, api_key="right") as server, refused:
        buy_batch(tmp_path / "l.db", server, pool(20), key="wrong-wrong")
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


@pytest.mark.parametrize("name", ["POST files", "POST batches"])
@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (429, "insufficient_quota", "quota or credit is used up"),
        (400, "invalid_request", "cannot be used: oh no"),
        (404, "not_found", "no files and batches at this address"),
    ],
)
def test_a_server_that_takes_no_batch_stops_with_nothing_reserved(
    tmp_path, name, status, code, text
):
    error = status, {"error": {"message": "oh no", "code": code}}, {}
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server, lambda requested, go: error if requested == name else go())
        with pytest.raises(TeacherUnavailableError, match=text):
            buy_batch(tmp_path / "l.db", server, pool(20))
        assert spy.seen[name] == 1
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


def test_a_server_that_is_not_there_costs_nothing(tmp_path):
    with run_teacher_server(words) as server:
        pass
    with pytest.raises(TeacherUnavailableError, match="ConnectError"):
        buy_batch(tmp_path / "l.db", server, pool(3), max_attempts=2)
    assert (held(tmp_path / "l.db"), counts(tmp_path / "l.db")) == (0, {"failed": 3})


def test_a_setting_that_no_request_may_have_costs_no_rows(tmp_path):
    stopped = pytest.raises(TeacherUnavailableError, match="does not accept a setting")
    with run_teacher_server(words, reasoning=True) as server, stopped:  # it takes no max_tokens
        buy_batch(tmp_path / "l.db", server, pool(20), max_tokens_field="max_tokens")
    assert (counts(tmp_path / "l.db"), held(tmp_path / "l.db")) == ({"failed": 20}, 0)


def test_refusals_among_answers_do_not_stop_the_purchase(tmp_path):
    def picky(question, seed):
        if question < "question10":
            raise ValueError("not this one")
        return "Answer: 4"

    with run_teacher_server(picky) as server:
        result = buy_batch(tmp_path / "l.db", server, pool(20))
        assert [c.state for c in result.completions] == ["refused"] * 10 + ["answered"] * 10
    with (
        run_teacher_server(picky) as server,
        pytest.raises(TeacherUnavailableError, match=r"refused the first \d+ "),
    ):
        buy_batch(tmp_path / "l2.db", server, pool(10))


def test_overbilling_is_caught_with_all_of_the_batch_saved(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, faults=Faults(overbill=1.0, refuse=0.3)) as server:
        with pytest.raises(OverbilledError, match="no limit can be kept"):
            buy_batch(path, server, pool(20))
        assert counts(path) == {"answered": server.served.total(), "refused": 7}
        assert (held(path), n_open(path)) == (server.billed, 0)


@pytest.mark.parametrize("n_broken", [1, 2])
def test_an_answer_that_is_no_chat_completion_is_sent_once_more(tmp_path, n_broken):
    path, ids = tmp_path / "l.db", []

    def hook(name, go):
        if name != "GET content":
            return go()
        rows = [json.loads(line) for line in go().splitlines()]
        ids.append(rows[min(3, len(rows) - 1)]["custom_id"])
        if len(ids) <= n_broken:
            rows[min(3, len(rows) - 1)]["response"]["body"] = {"hello": "there"}
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    with run_teacher_server(words) as server:
        BatchServerSpy(server, hook)
        result = buy_batch(path, server, pool(20))
        states = [row.state for row in result.completions]
        assert states.count("refused") == n_broken - 1
        assert (sum(counts(path).values()), counts(path)["unparsable"], n_open(path)) == (21, 1, 0)
        assert (len(ids), len(set(ids))) == (2, 1)
        assert server.billed <= held(path)
    assert verify(path).errors == ()


def test_a_batch_of_answers_that_are_no_chat_completions_stops_the_purchase(tmp_path):
    def hook(name, go):
        if name != "GET content":
            return go()
        rows = [json.loads(line) for line in go().splitlines()]
        for row in rows:
            row["response"]["body"] = {"hello": "there"}
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    with run_teacher_server(words) as server:
        BatchServerSpy(server, hook)
        with pytest.raises(TeacherUnavailableError, match=r"hello.*check teacher.base_url"):
            buy_batch(tmp_path / "l.db", server, pool(20))
    assert (counts(tmp_path / "l.db"), n_open(tmp_path / "l.db")) == ({"unparsable": 20}, 0)


@pytest.mark.parametrize("garbage", [b"<html>", (200, {}, {}), (200, {"id": 5, "data": 5}, {})])
@pytest.mark.parametrize("name", ["POST batches", "GET batch", "GET list"])
def test_a_response_that_is_not_a_batch_is_requested_again(tmp_path, name, garbage):
    path = tmp_path / "l.db"
    with run_teacher_server(
        words, batch_faults=BatchFaults(lose_create=int(name == "GET list"))
    ) as server:
        spy = BatchServerSpy(server)
        spy.hook = lambda requested, go: (
            garbage if requested == name and spy.seen[name] == 1 else go()
        )
        assert len(buy_batch(path, server, pool(20)).completions) == 20
        n_unknown = 20 * (name == "POST batches")  # a batch may exist
        assert counts(path) == {"answered": 20} | ({"unknown": 20} if n_unknown else {})
        assert (held(path), n_open(path)) == (server.billed + RESERVE * n_unknown, 0)


def test_a_server_without_files_is_recognized(tmp_path):
    with run_teacher_server(words) as server:
        BatchServerSpy(server, lambda name, go: b"<html>")
        with pytest.raises(TeacherUnavailableError, match="no files and batches at this address"):
            buy_batch(tmp_path / "l.db", server, pool(20))


def test_a_wait_that_the_server_asks_for_is_kept_unless_it_is_long(tmp_path):
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)
        error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
        spy.hook = lambda name, go: (
            (429, error, {"Retry-After": "0.4"}) if spy.seen[name] == 1 else go()
        )
        result = buy_batch(tmp_path / "l.db", server, pool(3))
        assert (result.n_requests_sent, len(result.completions)) == (3, 3)
        assert 1.6 <= result.seconds < 20  # upload, creation, one poll, the results
        spy.hook = lambda name, go: (429, error, {"Retry-After": "86400"})
        with pytest.raises(TeacherUnavailableError, match="asks to wait 86400 s"):
            buy_batch(tmp_path / "l2.db", server, pool(3))


@pytest.mark.parametrize("name", ["GET batch", "GET content"])
def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path, name):
    path, n_failed = tmp_path / "l.db", 0
    broken = 503, {"error": {"message": "down"}}, {}

    def away(requested, go):
        nonlocal n_failed
        if requested != name or n_failed >= max_failed:
            return go()
        n_failed += 1
        return None if n_failed % 2 else broken

    with run_teacher_server(words) as server:
        BatchServerSpy(server, away)
        max_failed = 5
        assert len(buy_batch(path, server, pool(20)).completions) == 20
        max_failed = 10**9
        with pytest.raises(
            TeacherUnavailableError, match=r"The batch continues. Run the same command again"
        ):
            buy_batch(path, server, make_other_requests(20))
        assert counts(path) == {"answered": 20, "reserved": 20}
        max_failed = 0
        again = buy_batch(path, server, make_other_requests(20))
        assert (again.n_requests_sent, len(again.completions)) == (0, 20)
        assert (held(path), set(server.served.values())) == (server.billed, {1})


def test_an_unreachable_batch_does_not_stop_a_purchase_of_other_requests(tmp_path):
    path, notes, unknown = tmp_path / "l.db", [], (404, {"error": {"message": "no"}}, {})
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)
        stop_purchase(path, server, spy, pool(5))
        n_looks = spy.seen["GET batch"]

        def hook(name, go):
            return unknown if name == "GET batch" and spy.seen[name] == n_looks + 1 else go()

        spy.hook = hook
        assert (
            len(buy_batch(path, server, make_other_requests(5), note=notes.append).completions) == 5
        )
        assert "does not know batch" in "".join(notes)
        assert counts(path) == {"answered": 5, "reserved": 5}


def test_a_batch_that_the_server_does_not_know_is_lost_after_two_days(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words, batch_faults=BatchFaults(batch_s=30)) as server:
        stop_purchase(path, server, BatchServerSpy(server), pool(5))
    with run_teacher_server(words) as server:
        text = r"does not know batch batch_\w+ of 5 requests. Use the key and the base_url"
        with pytest.raises(TeacherUnavailableError, match=text):
            buy_batch(path, server, pool(5))
        assert (server.calls.total(), counts(path)) == (0, {"reserved": 5})
        with sqlite3.connect(path) as db:
            db.execute("UPDATE batches SET created_at = '2020-01-01T00:00:00.000+00:00'")
        db.close()
        assert len(buy_batch(path, server, pool(5)).completions) == 5
        assert counts(path) == {"answered": 5, "unknown": 5}
        assert held(path) == server.billed + 5 * RESERVE


def test_a_missing_result_file_leaves_its_requests_reserved(tmp_path):
    path, gone = tmp_path / "l.db", (404, {"error": {"message": "gone"}}, {})
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)
        spy.hook = lambda name, go: gone if name == "GET content" and spy.seen[name] == 1 else go()
        with pytest.raises(TeacherUnavailableError, match="does not find"):  # it may come back
            buy_batch(path, server, pool(5))
        assert counts(path) == {"reserved": 5}
        assert len(buy_batch(path, server, pool(5)).completions) == 5
        assert counts(path) == {"answered": 5}
        assert set(server.served.values()) == {1}


def test_a_result_without_a_status_is_never_free(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)

        def without(name, go):
            content = go()
            if name != "GET content":
                return content
            lines = [json.loads(line) for line in content.splitlines()]
            for line in lines:
                del line["response"]["status_code"]
            if spy.seen[name] == 1:
                lines[0]["response"]["body"] = {"choices": 3}
            return "".join(json.dumps(line) + "\n" for line in lines).encode()

        spy.hook = without
        assert len(buy_batch(path, server, pool(5)).completions) == 5
        assert counts(path)["answered"] == 5
        assert held(path) >= server.billed


def test_a_batch_whose_making_was_not_answered_is_found_by_its_token(tmp_path):
    path = tmp_path / "l.db"
    with run_teacher_server(
        words, batch_faults=BatchFaults(lose_create=1, lose_upload=1)
    ) as server:
        spy = BatchServerSpy(server)
        result = buy_batch(path, server, pool(20))
        assert (len(result.completions), spy.seen["POST batches"]) == (20, 1)
        assert (server.billed, set(server.served.values())) == (held(path), {1})


def test_a_list_that_lags_is_looked_at_again(tmp_path):
    empty = 200, {"object": "list", "data": [], "has_more": False}, {}
    with run_teacher_server(words, batch_faults=BatchFaults(lose_create=1)) as server:
        spy = BatchServerSpy(server)
        spy.hook = lambda name, go: empty if name == "GET list" and spy.seen[name] < 4 else go()
        assert len(buy_batch(tmp_path / "l.db", server, pool(20)).completions) == 20
        assert (spy.seen["POST batches"], set(server.served.values())) == (1, {1})


def test_a_batch_that_is_never_listed_stays_reserved_and_its_requests_are_sent_again(tmp_path):
    path, empty = tmp_path / "l.db", (200, {"object": "list", "data": [], "has_more": False}, {})
    with run_teacher_server(words, batch_faults=BatchFaults(lose_create=1)) as server:
        BatchServerSpy(server, lambda name, go: empty if name == "GET list" else go())
        assert len(buy_batch(path, server, pool(20)).completions) == 20
        assert counts(path) == {"answered": 20, "unknown": 20}
        assert server.billed <= held(path)


@pytest.mark.parametrize("made", [True, False])
def test_a_failure_while_making_a_batch_makes_no_second_one(tmp_path, made):
    broken = 500, {"error": {"message": "oh no"}}, {}
    with run_teacher_server(words) as server:
        spy = BatchServerSpy(server)

        def hook(name, go):
            if name != "POST batches" or spy.seen[name] > 1:
                return go()
            if made:
                go()
            return broken

        spy.hook = hook
        assert len(buy_batch(tmp_path / "l.db", server, pool(20)).completions) == 20
        assert (spy.seen["POST batches"], set(server.served.values())) == (2 - made, {1})
        assert counts(tmp_path / "l.db") == {"answered": 20}


def test_a_list_of_many_batches_is_read_to_its_end(tmp_path):
    pages = []

    def one_by_one(name, go):
        """Return another batch on the first page, ours on the second."""
        if name == "GET next":
            return pages[0]
        if name == "GET list":
            pages.append(go())
            others = [{"id": "batch_other", "status": "completed", "metadata": None}]
            return 200, {"data": others, "has_more": True}, {}
        return go()

    with run_teacher_server(words, batch_faults=BatchFaults(lose_create=1)) as server:
        spy = BatchServerSpy(server, one_by_one)
        buy_batch(tmp_path / "l.db", server, pool(5))
        assert (spy.seen["GET list"], spy.seen["POST batches"]) == (1, 1)


def echo(name, go):
    """Return the result of `go`, with the key in every text of the server."""
    answer = go()
    if isinstance(answer, bytes):
        rows = [json.loads(line) for line in answer.splitlines()]
        for row in rows:
            row["response"]["request_id"] = CANARY
            row["response"]["body"]["choices"][0]["message"]["content"] += CANARY
        text = "".join(json.dumps(row) + "\n" for row in rows)
        return text.replace(CANARY, "\\u0073" + CANARY[1:]).encode()  # valid JSON too
    if answer is not None and "status" in answer[1]:
        errors = {"data": [{"message": f"you sent {CANARY}", "code": CANARY}]}
        return answer[0], {**answer[1], "errors": errors}, answer[2]
    return answer


@pytest.mark.parametrize("status", [0, 200, 400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("name", ["POST files", "POST batches", "GET batch", "GET content"])
def test_the_key_reaches_nothing_that_stays(tmp_path, caplog, name, status):
    """The server repeats the key: in an error of this status, in a success (200), and in the error
    of a failed batch (0).
    """
    caplog.set_level(logging.DEBUG)
    shown = []

    def hook(requested, go):
        if requested == name and status >= 400:
            text = f"you sent {CANARY} !"
            return status, {"error": {"message": text, "code": text}}, {"x-request-id": text}
        return echo(requested, go)

    with run_teacher_server(words, models=() if status == 0 else ("sandbox-teacher",)) as server:
        BatchServerSpy(server, hook)
        try:
            more = {"key": CANARY, "max_attempts": 2, "note": shown.append}
            shown.append(repr(buy_batch(tmp_path / "l.db", server, pool(9), **more)))
        except TeacherUnavailableError as exc:
            shown += [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
        else:
            assert status in (200, 404, 500)
    shown += [record.getMessage() for record in caplog.records]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert CANARY not in "".join(shown)
    assert CANARY.encode() not in stored
    assert CANARY.replace("/", "\\/").encode() not in stored
