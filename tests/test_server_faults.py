"""The contract of the teacher's transport with servers that misbehave: every known behavior, with
how the purchase ends, the rows it keeps, what it costs, and the sentence that names the cause.
"""

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

import pytest

from bridgekd.cost.budget import Limits
from bridgekd.errors import StoppedError
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import verify
from bridgekd.teacher import retry_timer
from bridgekd.teacher.buy_answers import buy_answers
from test_live_transport import RESERVE, counts, held, pool, teacher_at
from test_teacher_responses import COST, USAGE, build_body, encode, run_byte_server

N = 12
JSON, HTML = "application/json", "text/html"
BAD = "question07"  # the question that alone fails
GOOD = build_body("We count.\nAnswer: 4")
PAGE = b"<html><style>p {}</style><title>Blocked by the gate</title></html>"
KEY = "sk-0123456789"


def error(message, **fields):
    return encode({"error": {"message": message} | fields})


@dataclass
class Behavior:
    """What a server does, and what must follow.

    respond: returns (status, content type, body, headers) for the n-th call and its question.
    exit_code: of the command. n_rows, n_answered: of the result, if it ends well. held: micro-
    dollars in the ledger. says: what an error or a note of the purchase contains.
    """

    respond: Callable[[int, str], tuple[object, ...]]
    exit_code: int = 0
    n_answered: int = N
    held: int = N * COST
    says: tuple[str, ...] = ()
    more: dict[str, object] = field(default_factory=dict)


def answer(body, status=200, content_type=JSON, **headers):
    data = body if isinstance(body, bytes) else encode(body)
    return Behavior(lambda n, question: (status, content_type, data, headers))


def fail_one(status, body, content_type=JSON, **expected):
    """All questions are answered, except one that always gets the same error."""

    def respond(n, question):
        if BAD in question:
            return status, content_type, body, {}
        return 200, JSON, encode(GOOD), {}

    defaults = {"n_answered": N - 1, "held": (N - 1) * COST, "says": ("e7", "answers others")}
    return Behavior(respond, **(defaults | expected))


def fail_all(status, body, *says, content_type=JSON, **headers):
    behavior = answer(body, status, content_type, **headers)
    return Behavior(behavior.respond, 3, 0, 0, says)


def limit_rate(wait, status=429):
    """Two calls in a row are rejected; `wait` returns the body and headers that say how long.

    They come late, because the first one lowers the rate to that of the second before it.
    """

    def respond(n, question):
        if n in (N - 1, N):
            return status, JSON, *wait()
        return 200, JSON, encode(GOOD), {}

    return Behavior(respond)


def say_in_retry_info():
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.02s"}
    return encode([{"error": {"code": 429, "message": "Used up.", "details": [detail]}}]), {}


def say_as_date():
    now = time.time()
    dates = {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now - 2, usegmt=True)}
    return error("Used up."), dates


BEHAVIORS = {
    "answers": answer(GOOD),
    # Usage that is not one is charged at the reserve.
    "usage of zeros": Behavior(
        answer(GOOD | {"usage": dict.fromkeys(USAGE, 0)}).respond,
        held=N * RESERVE,
        says=("12 of 12 answers of 127.0.0.1 came without usable token counts",),
    ),
    "no usage": Behavior(answer(build_body("Answer: 4", None)).respond, held=N * RESERVE),
    "usage of floats": answer(GOOD | {"usage": {k: float(v) for k, v in USAGE.items()}}),
    "content in parts": answer(
        build_body([{"type": "thinking", "thinking": "So."}, {"type": "text", "text": "4"}])
    ),
    "thoughts in the text": answer(build_body("<think>hm</think> Answer: 4")),
    "control tokens": answer(build_body("So.<end> Answer: 4\x1b[2J")),
    "another charset": answer(GOOD, content_type="application/json; charset=utf-16"),
    # Rate limits that say when to come back.
    "429 with RetryInfo": limit_rate(say_in_retry_info),
    "429 with a sentence": limit_rate(lambda: (error("Please try again in 15ms."), {})),
    "429 with a date": limit_rate(say_as_date),
    "429 with seconds": limit_rate(lambda: (error("Slow down."), {"Retry-After": "0.02"})),
    "429 without a hint": limit_rate(lambda: (error("Slow down."), {})),
    "498": limit_rate(lambda: (error("No flexible capacity."), {}), 498),
    "503": limit_rate(lambda: (error("Overloaded."), {}), 503),
    "529": limit_rate(lambda: (error("Overloaded."), {}), 529),
    "429 for a day": fail_all(
        429, error("Come back in a day."), "asks to wait 86400 s", **{"Retry-After": "86400"}
    ),
    "429 for hours in a sentence": fail_all(
        429, error("Please try again in 2h5m."), "asks to wait 7500 s"
    ),
    # One question fails while others are answered.
    "one 500": fail_one(500, error("Invalid content."), says=("e7", "Invalid content.")),
    "one 403 page": fail_one(403, PAGE, HTML, says=("e7", "Blocked by the gate")),
    "one 400 page": fail_one(400, PAGE, HTML, says=("e7", "a page")),
    "one 406 page": fail_one(406, PAGE, HTML, says=("e7", "Blocked by the gate")),
    "one context length": fail_one(
        400,
        error("max_tokens is too large: the context length is 512.", param="max_tokens"),
        says=("e7", "context length", "prompt"),
    ),
    "one 400 of an API": fail_one(400, error("Flagged.", code="content_filter"), says=()),
    "one 503": fail_one(503, error("No."), says=("e7", "No.")),
    "one 502": fail_one(502, PAGE, HTML, held=(N - 1) * COST + 3 * RESERVE),
    "one that is no completion": fail_one(
        200, b'{"hello": 1}', held=(N - 1) * COST + 2 * RESERVE, says=("e7", "hello")
    ),
    # All questions fail.
    "all 500": fail_all(500, error("It broke."), "gave no answer", "It broke."),
    "all 403 pages": fail_all(403, PAGE, "does not permit", "Blocked", content_type=HTML),
    "all 400 pages": fail_all(400, PAGE, "a page", "Blocked by the gate", content_type=HTML),
    "all 413 pages": fail_all(413, PAGE, "a page", content_type=HTML),
    "all 422 without a body": fail_all(422, b"", "a page", "status 422"),
    "all context length": fail_all(
        400, error("max_tokens exceeds the context window.", param="max_tokens"), "do not fit"
    ),
    "another country": fail_all(
        403, error("Country not served.", code="unsupported_country"), "Country not served."
    ),
    "no such path": fail_all(404, b"404 page not found", "check base_url", content_type=HTML),
    "wrong key": fail_all(401, error(f"Bad key {KEY}."), "rejected", "key"),
    "no credit": fail_all(402, error("No balance."), "quota or credit is used up"),
    "control characters": fail_all(404, error("\x1b[2Jno"), "no model", "[2Jno"),
    "a redirect": fail_all(
        307, b"", "redirects to http://other.example/v1", Location="http://other.example/v1?k=1"
    ),
    "no completions": Behavior(
        answer(b'{"hello": 1}').respond, 3, 0, 4 * RESERVE, ("hello", "check teacher.base_url")
    ),
    "a large body": Behavior(
        answer(b" " * 16_000_001).respond, 3, 0, 4 * RESERVE, ("its response is larger than 16 MB",)
    ),
    "a compressed bomb": Behavior(
        answer(gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}).respond,
        3,
        0,
        4 * RESERVE,
        ("its response is larger than",),
    ),
    "a large error": fail_all(400, b"<html>" + b"x" * 1_000_001, "a page", content_type=HTML),
}


def purchase_from(path, behavior, n=N, **more):
    """Return (exit code, rows, all that the user is shown)."""
    notes = []
    with run_byte_server(behavior.respond) as server:
        teacher = teacher_at(server, **({"max_concurrent_requests": 1, "max_attempts": 2} | more))
        with Ledger(path) as ledger:
            try:
                result = buy_answers(
                    pool(n), ledger, teacher=teacher, limits=Limits(queries=n), run="r",
                    api_key=KEY, backoff_s=0.001, note=notes.append,
                )  # fmt: skip
            except StoppedError as exc:
                return exc.exit_code, (), " ".join([*notes, str(exc)])
    return 0, result.completions, " ".join(notes)


@pytest.mark.parametrize("name", BEHAVIORS)
def test_a_purchase_at_a_server_ends_as_its_contract_says(tmp_path, name):
    behavior, path = BEHAVIORS[name], tmp_path / "l.db"
    exit_code, rows, shown = purchase_from(path, behavior)
    assert (exit_code, shown) == (behavior.exit_code, shown)
    for text in behavior.says:
        assert text in shown
    assert KEY not in shown
    assert shown.isprintable()
    n_answered = sum(row.state == "answered" for row in rows)
    assert (len(rows), n_answered) == (0 if exit_code else N, behavior.n_answered)
    assert (held(path), verify(path).errors) == (behavior.held, ())
    # The same command again: final rows cost nothing and are not sent again.
    again_code, again, _ = purchase_from(path, behavior)
    assert (again_code, again) == (exit_code, rows)
    if not exit_code:
        assert held(path) == behavior.held


@pytest.mark.parametrize("name", [name for name in BEHAVIORS if name.startswith("one ")])
def test_a_question_that_alone_is_left_does_not_block_the_next_purchase(tmp_path, name):
    """All others are in the ledger, so that nothing else is sent beside it."""
    path, behavior = tmp_path / "l.db", BEHAVIORS[name]
    others = [request for request in pool(N) if BAD not in request.messages[0].content]
    is_reported = name not in ("one 503", "one 502")
    with run_byte_server(behavior.respond) as server, Ledger(path) as ledger:
        terms = {"teacher": teacher_at(server, max_attempts=2), "limits": Limits(queries=N)}
        terms |= {"run": "r", "api_key": "none", "backoff_s": 0.001}
        buy_answers(others, ledger, **terms)
        if name != "one 400 of an API":
            with pytest.raises(StoppedError, match="saved"):
                buy_answers(pool(N), ledger, **terms)
        if is_reported:
            result = buy_answers(pool(N), ledger, **terms)
            assert [row.state for row in result.completions].count("refused") == 1


def test_a_server_that_goes_down_while_requests_are_open_costs_no_row(tmp_path):
    def respond(n, question):
        if n > 20:
            return 500, JSON, error("The engine died."), {}
        return 200, JSON, encode(GOOD), {}

    path = tmp_path / "l.db"
    code, _, shown = purchase_from(path, Behavior(respond), 60, max_concurrent_requests=8)
    assert code == 3 and "The engine died." in shown
    assert set(counts(path)) == {"answered", "failed"}
    assert counts(path)["answered"] == 20


def test_a_server_that_fails_for_many_questions_stops_the_purchase(tmp_path):
    def respond(n, question):
        if int(question[-2:]) % 2:
            return 500, JSON, error("No."), {}
        return 200, JSON, encode(GOOD), {}

    code, _, shown = purchase_from(tmp_path / "l.db", Behavior(respond), 60)
    assert code == 3 and "gave no answer for example" in shown
    assert 8 <= counts(tmp_path / "l.db")["refused"] <= 10


@pytest.mark.parametrize("is_long", [True, False])
def test_only_a_long_wait_is_shown(tmp_path, monkeypatch, is_long):
    monkeypatch.setattr(retry_timer, "SHOWN_WAIT_S", 0.01 if is_long else 10.0)

    def respond(n, question):
        if n == 1:
            return 429, JSON, error("Quota of a minute."), {"Retry-After": "0.02"}
        return 200, JSON, encode(GOOD), {}

    shown = purchase_from(tmp_path / "l.db", Behavior(respond), 1)[2]
    assert shown == ("127.0.0.1 asks to wait 0 s (Quota of a minute.)." if is_long else "")
