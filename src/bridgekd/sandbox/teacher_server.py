"""An OpenAI-compatible teacher on loopback that fails on purpose and counts what it billed.

The one idea: every fault is drawn from (seed, request, attempt number), so a test that fails can be
run again. Faults of the line (429, 5xx, silence, a dropped connection, delay) are drawn anew at
each attempt; what belongs to the answer (cut off, refused, overbilled, without usage) is the same
whenever the same request is asked. A call that is dropped or never answered is billed: the worst
case.
"""

import json
import math
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bridgekd.sandbox.batch_api import BatchApi, BatchFaults
from bridgekd.sandbox.billing import BATCH_PRICE, SANDBOX_PRICE, BillingCounters
from bridgekd.sandbox.fake_teacher import (
    FakeTeacher,
    Faults,
    HttpAnswer,
    UsageStyle,
    count_requested_tokens,
    count_tokens,
    draw_bool,
    hash_body,
    make_error,
)
from bridgekd.sandbox.server_rate_limit import RateLimitSpec, ServerRateLimiter

__all__ = [
    "BATCH_PRICE",
    "SANDBOX_MODEL",
    "SANDBOX_PRICE",
    "BatchFaults",
    "Faults",
    "RateLimitSpec",
    "TeacherServer",
    "count_tokens",
    "hash_body",
    "run_teacher_server",
]

SANDBOX_MODEL = "sandbox-teacher"
_NO_FAULTS = Faults()
_NO_BATCH_FAULTS = BatchFaults()


class TeacherServer(ThreadingHTTPServer):
    """The running server; what it counts is told in `Books`."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self,
        voice: FakeTeacher,
        *,
        rate: RateLimitSpec | None,
        batch_faults: BatchFaults,
        port: int,
        api_key: str | None,
    ) -> None:
        self.voice, self.faults, self.api_key = voice, voice.faults, api_key
        self.books = BillingCounters()
        self.batches = BatchApi(voice, self.books, batch_faults)
        self.stopping = threading.Event()
        self._limit = ServerRateLimiter(rate) if rate else None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """What a client takes as `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def calls(self) -> Counter[str]:
        """How often each request arrived."""
        return self.books.calls

    @property
    def served(self) -> Counter[str]:
        """How often each request was billed."""
        return self.books.served

    @property
    def n_rate_limited(self) -> int:
        """How many arrivals were over the rate."""
        return self.books.throttled

    @property
    def billed(self) -> int:
        """Micro-dollars."""
        return self.books.billed

    def stats(self) -> dict[str, Any]:
        """The counts as JSON, as GET /stats gives them."""
        return self.books.to_json()

    def close(self) -> None:
        """Ends waiting answers and open connections, then the server and its batches."""
        self.stopping.set()
        self.shutdown()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self.batches.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def check_key(self, authorization: str) -> HttpAnswer | None:
        """What a client without the right key is told; None: it has it."""
        if self.api_key is None or authorization == f"Bearer {self.api_key}":
            return None
        # A careless server repeats the header; a client must not pass that on.
        return make_error(401, f"Incorrect API key provided: {authorization}.", "invalid_api_key")

    def complete(self, body: Mapping[str, Any], authorization: str) -> HttpAnswer | None:
        """The answer to one chat completion; None: say nothing and close the connection."""
        if refusal := self.check_key(authorization) or self.voice.find_request_error(body):
            return refusal
        key = hash_body(body)
        wait = self._limit.acquire(count_requested_tokens(body)) if self._limit else 0.0
        if self._limit and wait > 0:
            self.books.count_rate_limited(key)
            why = "Rate limit reached." if wait < math.inf else "Request too large."
            return make_error(429, why, "rate_limit_exceeded", self._limit.retry_after(wait))
        attempt = self.books.count_request(key)
        if not self.books.take_quota(self.faults.quota_after):
            return make_error(429, "You exceeded your current quota.", "insufficient_quota")
        line = random.Random(f"{self.voice.seed}:{key}:{attempt}")
        if fault := self._draw_fault(line):
            return fault
        self.stopping.wait(self._delay(line))
        said = self.voice.answer(body)
        if said.billed:
            self.books.add_cost(key, said.billed, SANDBOX_PRICE)
        if draw_bool(line, self.faults.silence):
            self.stopping.wait()
            return None
        return None if draw_bool(line, self.faults.drop) else said.answer

    def rate_headers(self) -> Mapping[str, str]:
        """What the x-ratelimit headers say now; without a rate, always the same."""
        if self._limit:
            return self._limit.build_headers()
        return {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999"}

    def _draw_fault(self, line: random.Random) -> HttpAnswer | None:
        if draw_bool(line, self.faults.rate_limit):
            wait = f"{self.faults.retry_after_s:g}"
            return make_error(
                429, "Rate limit reached.", "rate_limit_exceeded", {"Retry-After": wait}
            )
        if draw_bool(line, self.faults.error):
            return make_error(line.choice((500, 503)), "The server had an error.", "server_error")
        return None

    def _delay(self, line: random.Random) -> float:
        return self.faults.latency_s * math.exp(self.faults.spread * line.gauss())


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections; one write an answer."""

    server: TeacherServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the counts say more."""

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self._route(raw):
            case None:
                self.close_connection = True
            case bytes(content):
                self._send(200, content, {"Content-Type": "application/octet-stream"})
            case status, body, headers:
                self._send(status, json.dumps(body).encode(), headers)

    def _route(self, raw: bytes) -> HttpAnswer | bytes | None:
        server = self.server
        if (self.command, self.path) == ("GET", "/stats"):
            return 200, server.stats() | {"faults": asdict(server.faults)}, {}
        if (self.command, self.path) == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model"} for name in server.voice.models]
            return 200, {"object": "list", "data": models}, {}
        authorization = self.headers.get("Authorization") or ""
        if self.path.startswith(("/v1/files", "/v1/batches")):
            if stranger := server.check_key(authorization):
                return stranger
            kind = self.headers.get("Content-Type") or ""
            return server.batches.handle(self.command, self.path, kind, raw)
        if (self.command, self.path) != ("POST", "/v1/chat/completions"):
            return make_error(404, f"There is no {self.command} {self.path} here.", "not_found")
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return make_error(400, "The body is not a JSON object.", "invalid_request")
        return server.complete(body, authorization)

    def _send(self, status: int, payload: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            "x-request-id": f"req-{id(payload):x}",
            **self.server.rate_headers(),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def run_teacher_server(
    reply: Callable[[str, int], str] | None = None,
    *,
    faults: Faults = _NO_FAULTS,
    batch_faults: BatchFaults = _NO_BATCH_FAULTS,
    rate: RateLimitSpec | None = None,
    seed: int = 0,
    port: int = 0,
    wrong_rate: float = 0.1,
    models: tuple[str, ...] = (SANDBOX_MODEL,),
    api_key: str | None = None,
    reasoning: bool = False,
    usage_style: UsageStyle = "openai",
    cached: float = 0.0,
) -> Iterator[TeacherServer]:
    """A server that runs until the block ends, on 127.0.0.1 and a free port unless `port` is given.

    `reply(question, seed)` is the text it answers (a ValueError: it cannot); by default the
    sandbox world's teacher, wrong at `wrong_rate`. With `api_key`, any other key gets a 401.
    `rate` holds for live calls, not for batches. `reasoning` and `cached` are told in `Voice`,
    `usage_style` in `Usage`.
    """
    voice = FakeTeacher(
        reply or _make_reply_function(wrong_rate),
        faults,
        seed,
        models,
        reasoning,
        usage_style,
        cached,
    )
    server = TeacherServer(voice, rate=rate, batch_faults=batch_faults, port=port, api_key=api_key)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox-teacher")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def _make_reply_function(wrong_rate: float) -> Callable[[str, int], str]:
    from bridgekd.sandbox import world

    return lambda question, seed: world.generate_reply(question, seed, wrong_rate)
