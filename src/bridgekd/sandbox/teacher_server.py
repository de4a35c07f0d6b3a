"""An OpenAI-compatible teacher on loopback that fails on purpose and counts what it billed.

The one idea: every fault is drawn from (seed, request, attempt number), so a test that fails can be
run again. Faults of the line (429, 5xx, silence, a dropped connection, delay) are drawn anew at
each attempt; what belongs to the answer (cut off, refused, overbilled, without usage) is the same
whenever the same request is asked. A call that is dropped or never answered is billed: the worst
case.
"""

import hashlib
import json
import math
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bridgekd.config import Price
from bridgekd.core.costs import cost_microusd
from bridgekd.sandbox.rates import Rate, RateLimit

SANDBOX_PRICE = Price(input=2.5, output=10.0)
SANDBOX_MODEL = "sandbox-teacher"
_TOKEN = re.compile(r"\w+|[^\w\s]")

Answer = tuple[int, Mapping[str, Any], Mapping[str, str]]  # status, body, headers


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of calls, each in [0, 1], and times in seconds.

    Of the line, drawn at each attempt: `throttle` 429 with Retry-After, `error` 500 or 503,
    `silence` billed but never answered, `drop` billed and then the connection closed. Of the
    answer, drawn once a request: `cut` half of the text with finish_reason length, `refuse` 400
    by a content filter, `overbill` usage times 100, `no_usage` no usage at all. `latency_s` is
    the median of a lognormal delay of shape `spread`. `quota_after` calls are taken before the
    quota is exhausted.
    """

    throttle: float = 0.0
    error: float = 0.0
    silence: float = 0.0
    drop: float = 0.0
    cut: float = 0.0
    refuse: float = 0.0
    overbill: float = 0.0
    no_usage: float = 0.0
    latency_s: float = 0.0
    spread: float = 0.0
    retry_after_s: float = 1.0
    quota_after: int | None = None


def count_tokens(text: str) -> int:
    """Words and punctuation marks: what this server bills."""
    return len(_TOKEN.findall(text))


def request_key(body: Mapping[str, Any]) -> str:
    """A request's name in `calls` and `served`: the hash of its whole body."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


class TeacherServer(ThreadingHTTPServer):
    """The running server. `calls` and `served` count by `request_key`; `billed` is micro-dollars.

    `calls` counts every arrival, `served` those that were billed, whether or not the client got
    them; `throttled` is how many arrivals were over the rate. These do not count as attempts, so
    that the faults drawn do not depend on a client's pace.
    """

    daemon_threads = False
    request_queue_size = 256

    def __init__(
        self,
        reply: Callable[[str, int], str],
        *,
        faults: Faults,
        rate: Rate | None,
        seed: int,
        port: int,
        models: tuple[str, ...],
        api_key: str | None,
    ) -> None:
        self.reply, self.faults, self.seed, self.models = reply, faults, seed, models
        self.api_key = api_key
        self._limit = RateLimit(rate) if rate else None
        self.calls: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.throttled = 0
        self._attempts: Counter[str] = Counter()  # arrivals that the rate let in
        self.billed = 0
        self._n_taken = 0  # calls within the quota
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        """What a client takes as `base_url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def stats(self) -> dict[str, Any]:
        """The counts as JSON, as GET /stats gives them."""
        with self._lock:
            return {
                "n_calls": self.calls.total(),
                "n_served": self.served.total(),
                "n_throttled": self.throttled,
                "billed_microusd": self.billed,
                "calls": dict(self.calls),
                "served": dict(self.served),
            }

    def close(self) -> None:
        """Ends waiting answers and open connections, then the server."""
        self.stopping.set()
        self.shutdown()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):  # the client was faster
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
        """A client that went away is no news."""

    def complete(self, body: Mapping[str, Any], authorization: str) -> Answer | None:
        """The answer to one chat completion; None: say nothing and close the connection."""
        if self.api_key is not None and authorization != f"Bearer {self.api_key}":
            # A careless server repeats the header; a client must not pass that on.
            return _error(401, f"Incorrect API key provided: {authorization}.", "invalid_api_key")
        if body.get("model") not in self.models:
            return _error(
                404, f"The model {body.get('model')!r} does not exist.", "model_not_found"
            )
        if not _is_chat(body.get("messages")):
            return _error(400, "messages must be a list of role and content.", "invalid_request")
        key = request_key(body)
        wait = self._limit.take(_tokens_asked(body)) if self._limit else 0.0
        with self._lock:
            self.calls[key] += 1
            self.throttled += wait > 0
            self._attempts[key] += wait <= 0
            attempt = self._attempts[key]
        if self._limit and wait > 0:
            said = "Rate limit reached." if wait < math.inf else "Request too large."
            return _error(429, said, "rate_limit_exceeded", self._limit.retry_after(wait))
        with self._lock:
            quota = self.faults.quota_after
            exhausted = quota is not None and self._n_taken >= quota
            self._n_taken += not exhausted
        if exhausted:
            return _error(429, "You exceeded your current quota.", "insufficient_quota")
        line = random.Random(f"{self.seed}:{key}:{attempt}")
        if fault := self._line_fault(line):
            return fault
        self.stopping.wait(self._delay(line))
        answer = self._answer(body, key)
        if _hit(line, self.faults.silence):
            self.stopping.wait()
            return None
        return None if _hit(line, self.faults.drop) else answer

    def rate_headers(self) -> Mapping[str, str]:
        """What the x-ratelimit headers say now; without a rate, always the same."""
        if self._limit:
            return self._limit.headers()
        return {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999"}

    def _line_fault(self, line: random.Random) -> Answer | None:
        if _hit(line, self.faults.throttle):
            wait = f"{self.faults.retry_after_s:g}"
            return _error(429, "Rate limit reached.", "rate_limit_exceeded", {"Retry-After": wait})
        if _hit(line, self.faults.error):
            return _error(line.choice((500, 503)), "The server had an error.", "server_error")
        return None

    def _delay(self, line: random.Random) -> float:
        return self.faults.latency_s * math.exp(self.faults.spread * line.gauss())

    def _answer(self, body: Mapping[str, Any], key: str) -> Answer:
        """What this request is answered whenever it is asked, and its bill."""
        own = random.Random(f"{self.seed}:{key}")
        if _hit(own, self.faults.refuse):
            return _error(400, "The content filter blocked this.", "content_filter")
        question = str(body["messages"][-1]["content"])
        try:
            text = self.reply(question, own.getrandbits(32))
        except ValueError as exc:
            return _error(400, str(exc), "invalid_request")
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 1 << 20)
        if _hit(own, self.faults.cut):
            limit = min(limit, count_tokens(text) // 2)
        marks = list(_TOKEN.finditer(text))
        finish = "stop"
        if len(marks) > limit:
            text, finish = text[: marks[limit - 1].end() if limit else 0], "length"
        n_prompt = sum(count_tokens(str(m["content"])) for m in body["messages"])
        n_completion = count_tokens(text)
        if _hit(own, self.faults.overbill):
            n_completion = 100 * (n_completion + limit)
        with self._lock:
            self.served[key] += 1
            self.billed += cost_microusd(SANDBOX_PRICE, n_prompt, n_completion)
        answer = {
            "id": f"chatcmpl-{key}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": finish,
                }
            ],
        }
        if not _hit(own, self.faults.no_usage):
            answer["usage"] = {
                "prompt_tokens": n_prompt,
                "completion_tokens": n_completion,
                "total_tokens": n_prompt + n_completion,
            }
        return 200, answer, {}


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections; one write an answer."""

    server: TeacherServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in self.server.models]
            self._send(200, {"object": "list", "data": models}, {})
        elif self.path == "/stats":
            self._send(200, self.server.stats() | {"faults": asdict(self.server.faults)}, {})
        else:
            self._send(*_error(404, f"There is no {self.path} here.", "not_found"))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(*_error(404, f"There is no {self.path} here.", "not_found"))
            return
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._send(*_error(400, "The body is not a JSON object.", "invalid_request"))
            return
        answer = self.server.complete(body, self.headers.get("Authorization") or "")
        if answer is None:
            self.close_connection = True
        else:
            self._send(*answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the counts say more."""

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        payload = json.dumps(body).encode()
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
def serve(
    reply: Callable[[str, int], str] | None = None,
    *,
    faults: Faults = Faults(),
    rate: Rate | None = None,
    seed: int = 0,
    port: int = 0,
    wrong_rate: float = 0.1,
    models: tuple[str, ...] = (SANDBOX_MODEL,),
    api_key: str | None = None,
) -> Iterator[TeacherServer]:
    """A server that runs until the block ends, on 127.0.0.1 and a free port unless `port` is given.

    `reply(question, seed)` is the text it answers (a ValueError: it cannot); by default the
    sandbox world's teacher, wrong at `wrong_rate`. With `api_key`, any other key gets a 401.
    """
    server = TeacherServer(
        reply or _world_reply(wrong_rate),
        faults=faults,
        rate=rate,
        seed=seed,
        port=port,
        models=models,
        api_key=api_key,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox-teacher")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def _world_reply(wrong_rate: float) -> Callable[[str, int], str]:
    from bridgekd.sandbox import world

    return lambda question, seed: world.reply(question, seed, wrong_rate)


def _is_chat(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages)
    )


def _tokens_asked(body: Mapping[str, Any]) -> int:
    n_characters = sum(len(m["content"]) for m in body["messages"])
    return -(-n_characters // 4) + int(
        body.get("max_tokens") or body.get("max_completion_tokens") or 0
    )


def _hit(dice: random.Random, share: float) -> bool:
    return dice.random() < share


def _error(
    status: int, message: str, code: str, headers: Mapping[str, str] | None = None
) -> Answer:
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return status, body, headers or {}
