"""An OpenAI-compatible teacher on loopback that fails on purpose and counts what it bills.

Every fault is drawn from (seed, request, attempt number), so a failed test can be repeated.
Faults of the connection (429, 5xx, silence, a dropped connection, delay) are drawn for each
attempt. Faults of the answer (truncated, refused, overbilled, without usage) are the same for every
attempt of a request. A request that is dropped or never answered is billed: this is the worst case.
"""

import math
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from email.message import Message

from bridgekd.sandbox.teacher_server import (
    SANDBOX_MODEL,
    HttpAnswer,
    JsonObject,
    ReplyFunction,
    TeacherServer,
    hash_body,
    make_error,
    make_reply_function,
    parse_body,
    serve_until_end,
)
from faulty_teacher.answers import FakeTeacher, Faults, FullChatRequest, UsageStyle, draw_bool
from faulty_teacher.batch_api import BatchApi, BatchFaults
from faulty_teacher.billing import SANDBOX_PRICE, BillingCounters
from faulty_teacher.rate_limit import RateLimitSpec, ServerRateLimiter

_NO_FAULTS = Faults()
_NO_BATCH_FAULTS = BatchFaults()


class FaultyTeacherServer(TeacherServer):
    """The running server. `calls` and `served` are those of `BillingCounters`."""

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
        super().__init__(teacher.reply, teacher.seed, port)

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
        super().close()
        self.batches.close()

    def handle_http(
        self, method: str, path: str, headers: Message, raw: bytes
    ) -> HttpAnswer | bytes | None:
        answer = self._route(method, path, headers, raw)
        if isinstance(answer, tuple):
            status, body, own = answer
            return status, body, {**self.build_rate_headers(), **own}
        return answer

    def _route(
        self, method: str, path: str, headers: Message, raw: bytes
    ) -> HttpAnswer | bytes | None:
        if (method, path) == ("GET", "/stats"):
            return 200, self.get_stats(), {}
        if (method, path) == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model"} for name in self.teacher.models]
            return 200, {"object": "list", "data": models}, {}
        authorization = headers.get("Authorization") or ""
        if path.startswith(("/v1/files", "/v1/batches")):
            if rejection := self.check_key(authorization):
                return rejection
            return self.batches.handle(method, path, headers.get("Content-Type") or "", raw)
        body = parse_body(raw)
        if (method, path) != ("POST", "/v1/chat/completions") or body is None:
            return super().handle_http(method, path, headers, raw)
        return self.complete(body, authorization)

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
            wait = self._limiter.acquire(FullChatRequest.model_validate(body).rate_limit_tokens)
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


@contextmanager
def run_teacher_server(
    reply: ReplyFunction | None = None,
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
) -> Iterator[FaultyTeacherServer]:
    """Yield a server that runs until the block ends, on 127.0.0.1; port 0 is a free port.

    reply: `reply(question, seed)` returns the text of an answer, or raises ValueError if it cannot.
    The default is the teacher of the sandbox world, which is wrong at `wrong_rate`. api_key: any
    other key gets a 401. rate: for live requests, not for batches. For `reasoning` and `cached` see
    `FakeTeacher`, for `usage_style` see `FakeUsage`.
    """
    teacher = FakeTeacher(
        reply or make_reply_function(wrong_rate),
        faults,
        seed,
        models,
        reasoning,
        usage_style,
        cached,
    )
    server = FaultyTeacherServer(
        teacher, rate=rate, batch_faults=batch_faults, port=port, api_key=api_key
    )
    with serve_until_end(server):
        yield server
