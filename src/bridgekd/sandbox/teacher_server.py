"""An OpenAI-compatible teacher on loopback that fails on purpose and counts what it bills.

Every fault is drawn from (seed, request, attempt number), so a failed test can be repeated.
Faults of the connection (429, 5xx, silence, a dropped connection, delay) are drawn for each
attempt. Faults of the answer (truncated, refused, overbilled, without usage) are the same for every
attempt of a request. A request that is dropped or never answered is billed: this is the worst case.
"""

import json
import math
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bridgekd.sandbox.batch_api import BatchApi, BatchFaults
from bridgekd.sandbox.billing import BATCH_PRICE, SANDBOX_PRICE, BillingCounters
from bridgekd.sandbox.fake_teacher import (
    ChatRequest,
    FakeTeacher,
    Faults,
    HttpAnswer,
    JsonObject,
    UsageStyle,
    draw_bool,
    estimate_tokens,
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
    "estimate_tokens",
    "hash_body",
    "run_teacher_server",
]

SANDBOX_MODEL = "sandbox-teacher"
_NO_FAULTS = Faults()
_NO_BATCH_FAULTS = BatchFaults()


class TeacherServer(ThreadingHTTPServer):
    """The running server. `calls` and `served` are those of `BillingCounters`."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self,
        teacher: FakeTeacher,
        *,
        rate: RateLimitSpec | None,
        batch_faults: BatchFaults,
        port: int,
        api_key: str | None,
    ) -> None:
        self.teacher, self.faults, self.api_key = teacher, teacher.faults, api_key
        self.counters = BillingCounters()
        self.calls, self.served = self.counters.calls, self.counters.served
        self.batches = BatchApi(teacher, self.counters, batch_faults)
        self.stopping = threading.Event()
        self._limiter = ServerRateLimiter(rate) if rate else None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """The `base_url` for a client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def n_rate_limited(self) -> int:
        """The number of arrivals over the rate limit."""
        return self.counters.n_rate_limited

    @property
    def billed(self) -> int:
        """The cost of everything that was served, in micro-dollars."""
        return self.counters.billed_microusd

    def get_stats(self) -> JsonObject:
        """Return the counters and faults as JSON, as GET /stats does."""
        return {**self.counters.to_json(), "faults": asdict(self.faults)}

    def close(self) -> None:
        """Stop waiting answers, open connections, the server and its batches."""
        self.stopping.set()
        self.shutdown()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):  # the client closed it first
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
        """Ignore a client that closed its connection."""

    def check_key(self, authorization: str) -> HttpAnswer | None:
        """Return a 401 for a wrong API key, else None."""
        if self.api_key is None or authorization == f"Bearer {self.api_key}":
            return None
        # A careless server repeats the header; a client must not pass that on.
        return make_error(401, f"Incorrect API key provided: {authorization}.", "invalid_api_key")

    def complete(self, body: JsonObject, authorization: str) -> HttpAnswer | None:
        """Return the answer to a chat completion request; None closes the connection."""
        if rejection := self.check_key(authorization) or self.teacher.find_request_error(body):
            return rejection
        key = hash_body(body)
        if self._limiter:
            wait = self._limiter.acquire(ChatRequest.model_validate(body).rate_limit_tokens)
            if wait > 0:
                self.counters.count_rate_limited(key)
                message = "Rate limit reached." if wait < math.inf else "Request too large."
                headers = self._limiter.build_retry_header(wait)
                return make_error(429, message, "rate_limit_exceeded", headers)
        attempt = self.counters.count_request(key)
        if not self.counters.take_quota(self.faults.quota_after):
            return make_error(429, "You exceeded your current quota.", "insufficient_quota")
        rng = random.Random(f"{self.teacher.seed}:{key}:{attempt}")
        if draw_bool(rng, self.faults.rate_limit):
            headers = {"Retry-After": f"{self.faults.retry_after_s:g}"}
            return make_error(429, "Rate limit reached.", "rate_limit_exceeded", headers)
        if draw_bool(rng, self.faults.error):
            return make_error(rng.choice((500, 503)), "The server had an error.", "server_error")
        self.stopping.wait(
            self.faults.latency_s * math.exp(self.faults.latency_log_sd * rng.gauss())
        )
        result = self.teacher.answer(body)
        if result.billed:
            self.counters.add_cost(key, result.billed, SANDBOX_PRICE)
        if draw_bool(rng, self.faults.silence):
            self.stopping.wait()
            return None
        return None if draw_bool(rng, self.faults.drop) else result.answer

    def build_rate_headers(self) -> Mapping[str, str]:
        """Return the x-ratelimit headers; they are constant without a rate limit."""
        if self._limiter:
            return self._limiter.build_headers()
        return {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999"}


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections and one write for each answer."""

    server: TeacherServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self._route(raw):
            case None:
                self.close_connection = True
            case bytes(content):
                self._send(200, content, {"Content-Type": "application/octet-stream"})
            case status, body, headers:
                self._send(status, json.dumps(body).encode(), headers)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the counters have everything."""

    def _route(self, raw: bytes) -> HttpAnswer | bytes | None:
        server, route = self.server, (self.command, self.path)
        if route == ("GET", "/stats"):
            return 200, server.get_stats(), {}
        if route == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model"} for name in server.teacher.models]
            return 200, {"object": "list", "data": models}, {}
        authorization = self.headers.get("Authorization") or ""
        if self.path.startswith(("/v1/files", "/v1/batches")):
            if rejection := server.check_key(authorization):
                return rejection
            content_type = self.headers.get("Content-Type") or ""
            return server.batches.handle(*route, content_type, raw)
        if route != ("POST", "/v1/chat/completions"):
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
            **self.server.build_rate_headers(),
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
    """Yield a server that runs until the block ends, on 127.0.0.1; port 0 is a free port.

    reply: `reply(question, seed)` returns the text of an answer, or raises ValueError if it cannot.
    The default is the teacher of the sandbox world, which is wrong at `wrong_rate`. api_key: any
    other key gets a 401. rate: for live requests, not for batches. For `reasoning` and `cached` see
    `FakeTeacher`, for `usage_style` see `FakeUsage`.
    """
    teacher = FakeTeacher(
        reply or _make_reply_function(wrong_rate),
        faults,
        seed,
        models,
        reasoning,
        usage_style,
        cached,
    )
    server = TeacherServer(
        teacher, rate=rate, batch_faults=batch_faults, port=port, api_key=api_key
    )
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
