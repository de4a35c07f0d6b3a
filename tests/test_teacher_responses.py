"""Responses as servers send them: their bytes, their charset, their usage and their errors, from a
real loopback server to the ledger.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from bridgekd.api_client.request_key import build_request
from bridgekd.cost.budget import Limits
from bridgekd.errors import TeacherUnavailableError
from bridgekd.ledger.ledger import Ledger
from bridgekd.ledger.verify import verify
from faulty_teacher import SANDBOX_PRICE
from test_live_transport import RESERVE, counts, held, pool, purchase, teacher_at

TEXT = "Zoë counts 4 €. 数\nAnswer: 4"
USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
COST = 325  # of this usage, in micro-dollars: 50 * 2.5 + 20 * 10
# Charsets that are wrong, that Python cannot decode text with, or that it does not have.
CHARSETS = ["utf-16", "ISO-8859-1", "idna", "zlib", "base64", "hex", "bz2", "rot13", "undefined",
            "punycode", "no-such-charset", ""]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.n_calls += 1
        question = request["messages"][-1]["content"]
        status, content_type, payload, *rest = self.server.respond(self.server.n_calls, question)
        headers = {"Content-Type": content_type} | (rest[0] if rest else {})
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format, *args):
        pass


@contextmanager
def run_byte_server(respond):
    """Yield a server that answers its n-th call with respond(n, question): status, content type,
    bytes and perhaps further headers.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.respond, server.n_calls = respond, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield SimpleNamespace(base_url=base_url, count=lambda: server.n_calls)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def build_body(content, usage=USAGE, **message):
    message = {"role": "assistant", "content": content} | message
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


def encode(body, encoding="utf-8"):
    return json.dumps(body, ensure_ascii=False).encode(encoding)


def purchase_body(path, body, n=3, **more):
    with run_byte_server(lambda call, question: (200, "application/json", encode(body))) as server:
        result = purchase(path, server, pool(n), **more)
    assert verify(path).errors == ()
    return result


@pytest.mark.parametrize("charset", CHARSETS)
def test_an_answer_is_utf8_whatever_its_charset_says(tmp_path, charset):
    content_type = f"application/json; charset={charset}"
    with run_byte_server(
        lambda call, question: (200, content_type, encode(build_body(TEXT)))
    ) as server:
        result = purchase(tmp_path / "l.db", server, pool(3))
        again = purchase(tmp_path / "l.db", server, pool(3))
        assert server.count() == 3
    assert [c.text for c in result.completions] == [TEXT] * 3
    assert again.completions == result.completions
    assert counts(tmp_path / "l.db") == {"answered": 3}


@pytest.mark.parametrize("charset", CHARSETS)
def test_an_error_is_utf8_whatever_its_charset_says(tmp_path, charset):
    content_type = f"application/json; charset={charset}"
    busy, blocked = ({"error": {"message": text}} for text in ("busy", "Zoë's country"))

    def respond(call, question):
        if call == 1:
            return 503, content_type, encode(busy)
        return 200, "application/json", encode(build_body("Answer: 4"))

    with run_byte_server(respond) as server:
        result = purchase(tmp_path / "l.db", server, pool(1))
    assert (len(result.completions), result.n_requests_sent) == (1, 2)
    with (
        run_byte_server(lambda call, question: (403, content_type, encode(blocked))) as server,
        pytest.raises(TeacherUnavailableError, match="Zoë's country"),
    ):
        purchase(tmp_path / "l.db", server, pool(5)[1:])


def test_invalid_bytes_in_an_answer_are_replaced(tmp_path):
    payload = encode(build_body("so\N{SNOWMAN}so")).replace("\N{SNOWMAN}".encode(), b"\xff")
    with run_byte_server(lambda call, question: (200, "application/json", payload)) as server:
        result = purchase(tmp_path / "l.db", server, pool(1))
    assert [c.text for c in result.completions] == ["so\ufffdso"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le"])
def test_an_answer_in_another_encoding_is_unreadable_and_keeps_its_reserve(tmp_path, encoding):
    path = tmp_path / "l.db"

    def respond(call, question):
        content_type = f"application/json; charset={encoding}"
        return 200, content_type, encode(build_body(TEXT), encoding)

    with (
        run_byte_server(respond) as server,
        pytest.raises(TeacherUnavailableError, match="is not a chat completion"),
    ):
        purchase(path, server, pool(1))
    assert (counts(path), held(path)) == ({"unparsable": 1}, RESERVE)
    assert verify(path).errors == ()


@pytest.mark.parametrize("n_prompt", [0, 0.0, 2.5, -1, True, float("nan")])
def test_a_usage_without_prompt_tokens_is_charged_its_reserve(tmp_path, n_prompt):
    usage = {"prompt_tokens": n_prompt, "completion_tokens": 0, "total_tokens": 0}
    limits = Limits(microusd=2 * RESERVE)
    result = purchase_body(tmp_path / "l.db", build_body("a", usage), 5, limits=limits)
    assert [c.cost_microusd for c in result.completions] == [RESERVE] * 2
    assert (result.stop_reason, held(tmp_path / "l.db")) == ("usd", 2 * RESERVE)


def test_a_usage_of_whole_floats_costs_the_same_as_of_integers(tmp_path):
    usage = {name: float(n) for name, n in USAGE.items()}
    result = purchase_body(tmp_path / "l.db", build_body("a", usage))
    assert [c.cost_microusd for c in result.completions] == [COST] * 3


def test_an_answer_of_zeros_that_was_recorded_before_a_kill_is_settled_at_its_reserve(tmp_path):
    body = encode(build_body("a", dict.fromkeys(USAGE, 0))).decode()
    with run_byte_server(lambda call, question: (500, "text/plain", b"")) as server:
        request = build_request(teacher_at(server), pool(1)[0])
        with Ledger(tmp_path / "l.db") as ledger:
            attempt = ledger.reserve(request, run="r", purpose="train", reserve_microusd=RESERVE)
            ledger.record(attempt, body, price=SANDBOX_PRICE, request_id=None)
        result = purchase(tmp_path / "l.db", server, pool(1))
        assert server.count() == 0
    assert [c.cost_microusd for c in result.completions] == [RESERVE]


def test_thinking_parts_are_stored_as_the_reasoning(tmp_path):
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}]}
    content = [thought, {"type": "text", "text": "Answer: 4"}]
    result = purchase_body(tmp_path / "l.db", build_body(content))
    plain = purchase_body(
        tmp_path / "plain.db", build_body("Answer: 4", reasoning_content="Two and two.")
    )
    assert result.completions == plain.completions
    assert {(c.text, c.reasoning) for c in result.completions} == {("Answer: 4", "Two and two.")}


def purchase_error(path, status, payload, key="sk-0123456789", content_type="application/json"):
    """Return the message of a purchase whose every request gets this error."""
    with (
        run_byte_server(lambda call, question: (status, content_type, payload)) as server,
        pytest.raises(TeacherUnavailableError) as caught,
    ):
        purchase(path, server, pool(5), key=key)
    assert (held(path), set(counts(path))) == (0, {"failed"})
    return str(caught.value)


def test_a_403_that_is_not_about_the_key_shows_the_words_of_the_server(tmp_path):
    key = "sk-0123456789"
    error = {"code": "country_not_served", "message": f"Not served in this country ({key})."}
    text = purchase_error(tmp_path / "l.db", 403, encode({"error": error}), key)
    assert "does not permit the request (Not served in this country ([key]).)" in text
    assert "rejected" not in text


def test_a_403_that_is_about_the_key_shows_no_words_of_the_server(tmp_path):
    error = {"code": "invalid_api_key", "message": "Wrong key: sk-01...89."}
    text = purchase_error(tmp_path / "l.db", 403, encode({"error": error}))
    assert "it rejected a request without a key (403)" in text
    assert "sk-01" not in text


@pytest.mark.parametrize("page", [b"no such page", b"<html>Not Found</html>", b""])
def test_a_404_without_json_says_to_check_the_address(tmp_path, page):
    text = purchase_error(tmp_path / "l.db", 404, page, content_type="text/html")
    assert "check base_url: is /v1 missing?" in text
    assert "no model" not in text


def test_a_498_is_a_rate_limit_that_is_tried_again(tmp_path):
    def respond(call, question):
        if call % 3 == 0:
            error = {"message": "No flexible capacity.", "type": "capacity_exceeded"}
            return 498, "application/json", encode({"error": error})
        return 200, "application/json", encode(build_body("Answer: 4"))

    with run_byte_server(respond) as server:
        result = purchase(tmp_path / "l.db", server, pool(12), max_concurrent_requests=2)
    assert len(result.completions) == 12
    assert result.charged_microusd == held(tmp_path / "l.db") == 12 * COST
    assert counts(tmp_path / "l.db")["failed"] == result.n_requests_sent - 12 >= 5
