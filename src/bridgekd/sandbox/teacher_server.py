"""The teacher of the sandbox: an OpenAI-compatible server of chat completions on loopback.

A request has the same answer at any time. The teacher of the tests (`tests/faulty_teacher`) gives
the same answers, fails on purpose, and counts what it bills.
"""

import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from bridgekd.sandbox import world

JsonObject = Mapping[str, object]
HttpAnswer = tuple[int, JsonObject, Mapping[str, str]]  # status, body, headers
ReplyFunction = Callable[[str, int], str]
SANDBOX_MODEL = "sandbox-teacher"
_TOKEN = re.compile(r"\w+|[^\w\s]")
NO_LIMIT = 1 << 20


class LenientModel(BaseModel):
    """A part of a request: strict types, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class ChatMessage(LenientModel):
    """A message of a request."""

    content: str


class ChatRequest(LenientModel):
    """The fields of a chat completion request that the teacher reads."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: NonNegativeInt | None = None
    max_completion_tokens: NonNegativeInt | None = None
    seed: int | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None

    @property
    def limit(self) -> int:
        """The maximum number of completion tokens; 0 is no limit."""
        return self.max_tokens or self.max_completion_tokens or 0


class TeacherServer(ThreadingHTTPServer):
    """The running server. `reply(question, seed)` returns the text of an answer, or raises
    ValueError if it cannot.
    """

    daemon_threads = False
    request_queue_size = 256

    def __init__(self, reply: ReplyFunction, seed: int, port: int) -> None:
        self.reply, self.seed = reply, seed
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """The `base_url` for a client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def close(self) -> None:
        """Stop the server and close all connections."""
        self.shutdown()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):  # the client closed it first
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that closed its connection."""

    def handle_http(
        self, method: str, path: str, headers: Message, raw: bytes
    ) -> HttpAnswer | bytes | None:
        """Return the answer to a request, or the bytes of a file; None closes the connection."""
        if (method, path) != ("POST", "/v1/chat/completions"):
            return make_error(404, f"There is no {method} {path} here.", "not_found")
        body = parse_body(raw)
        if body is None:
            return make_error(400, "The body is not a JSON object.", "invalid_request")
        return self._complete(body)

    def _complete(self, body: JsonObject) -> HttpAnswer:
        if error := find_request_error(body, ChatRequest, (SANDBOX_MODEL,)):
            return error
        request = ChatRequest.model_validate(body)
        try:
            text = self.reply(request.messages[-1].content, _draw_reply_seed(self.seed, body))
        except ValueError as exc:
            return make_error(400, str(exc), "invalid_request")
        text, is_complete = truncate_text(text, request.limit or NO_LIMIT)
        n_prompt = sum(estimate_tokens(m.content) for m in request.messages)
        n_completion = estimate_tokens(text)
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion}
        message = {"role": "assistant", "content": text}
        completion = build_completion(body, message, "stop" if is_complete else "length")
        return 200, completion | {"usage": usage | {"total_tokens": n_prompt + n_completion}}, {}


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections and one write for each answer."""

    server: TeacherServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.server.handle_http(self.command, self.path, self.headers, raw):
            case None:
                self.close_connection = True
            case bytes(content):
                self._send(200, content, {"Content-Type": "application/octet-stream"})
            case status, body, headers:
                self._send(status, json.dumps(body).encode(), headers)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _send(self, status: int, payload: bytes, headers: Mapping[str, str]) -> None:
        own = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        self.send_response(status)
        for name, value in {**own, "x-request-id": f"req-{id(payload):x}", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def run_teacher_server(
    *, seed: int = 0, port: int = 0, wrong_rate: float = world.WRONG_RATE
) -> Iterator[TeacherServer]:
    """Yield the teacher of the sandbox world, which runs until the block ends, on 127.0.0.1.

    port: 0 is a free one. wrong_rate: the fraction of wrong answers. Another seed gives others.
    """
    with serve_until_end(TeacherServer(make_reply_function(wrong_rate), seed, port)) as server:
        yield server


@contextmanager
def serve_until_end(server: TeacherServer) -> Iterator[TeacherServer]:
    """Run a server in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox-teacher")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def make_reply_function(wrong_rate: float = world.WRONG_RATE) -> ReplyFunction:
    """Return the replies of the sandbox world."""
    return lambda question, seed: world.generate_reply(question, seed, wrong_rate)


def parse_body(raw: bytes) -> JsonObject | None:
    """Return the JSON object in a body; None for anything else."""
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def find_request_error(
    body: JsonObject, request_class: type[BaseModel], models: tuple[str, ...]
) -> HttpAnswer | None:
    """Return what is wrong with a chat completion request, or None."""
    if body.get("model") not in models:
        message = f"The model {body.get('model')!r} does not exist."
        return make_error(404, message, "model_not_found")
    try:
        request_class.model_validate(body)
    except ValidationError as exc:
        name = str(exc.errors()[0]["loc"][0])
        if name == "messages":
            message = "messages must be a list of role and content."
            return make_error(400, message, "invalid_request")
        message = f"Invalid value for {name}: {body[name]!r}."
        return make_error(400, message, "invalid_request", param=name)
    return None


def build_completion(
    body: JsonObject, message: Mapping[str, str], finish_reason: str
) -> dict[str, object]:
    """Return the body of a chat completion without its usage."""
    return {
        "id": f"chatcmpl-{hash_body(body)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }


def make_error(
    status: int,
    message: str,
    code: str,
    headers: Mapping[str, str] | None = None,
    *,
    param: str | None = None,
) -> HttpAnswer:
    """Return an error in the format of OpenAI."""
    body = {"error": {"message": message, "type": code, "param": param, "code": code}}
    return status, body, headers or {}


def estimate_tokens(text: str) -> int:
    """Return the number of words and punctuation marks, which this server bills as tokens."""
    return len(_TOKEN.findall(text))


def truncate_text(text: str, limit: int) -> tuple[str, bool]:
    """Return the first `limit` tokens of the text, and whether they are the complete text."""
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) <= limit:
        return text, True
    return text[: tokens[limit - 1].end() if limit else 0], False


def hash_body(body: JsonObject) -> str:
    """Return the hash of the complete body of a request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def hash_without_unused_seed(body: JsonObject) -> str:
    """Return the hash of a request, without a `seed` that greedy decoding does not use."""
    if "seed" in body and body.get("temperature") == 0:
        body = {name: value for name, value in body.items() if name != "seed"}
    return hash_body(body)


def _draw_reply_seed(seed: int, body: JsonObject) -> int:
    rng = random.Random(f"{seed}:{hash_without_unused_seed(body)}")
    rng.random()  # decides a fault in the teacher of the tests, which gives the same answers
    return rng.getrandbits(32)
