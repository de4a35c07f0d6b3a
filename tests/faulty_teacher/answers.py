"""The answers of the faulty teacher: a pure function of the seed and the request.

Everything about an answer (text, faults, usage) is drawn from (seed, request). So a request has the
same answer at any time, live or in a batch. The bill counts what was served: it includes reasoning
tokens and ignores a wrong usage.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bridgekd.prompts import ANSWER_PREFIX
from bridgekd.sandbox.teacher_server import (
    NO_LIMIT,
    ChatRequest,
    HttpAnswer,
    JsonObject,
    LenientModel,
    build_completion,
    estimate_tokens,
    find_request_error,
    hash_without_unused_seed,
    make_error,
    truncate_text,
)

UsageStyle = Literal["openai", "gemini", "anthropic", "deepseek"]

_N_DRAFTS = {"none": 0, "minimal": 1, "low": 1, "medium": 2, "high": 4}  # by reasoning_effort


@dataclass(frozen=True, slots=True)
class Faults:
    """Fractions of requests in [0, 1], and times in seconds.

    Drawn for each attempt: `rate_limit` (429 with Retry-After), `error` (500 or 503), `silence`
    (billed, but never answered), `drop` (billed, then the connection is closed). Drawn once for
    each request: `truncate` (half of the text with finish_reason length), `refuse` (400 by a
    content filter), `overbill` (usage times 100), `no_usage`. `latency_s` is the median of a
    log-normal delay, `latency_log_sd` the standard deviation of its logarithm. After `quota_after`
    requests the quota is exhausted. Batches have only the faults that are drawn once, and their
    own `BatchFaults`.
    """

    rate_limit: float = 0.0
    error: float = 0.0
    silence: float = 0.0
    drop: float = 0.0
    truncate: float = 0.0
    refuse: float = 0.0
    overbill: float = 0.0
    no_usage: float = 0.0
    latency_s: float = 0.0
    latency_log_sd: float = 0.0
    retry_after_s: float = 1.0
    quota_after: int | None = None


class _ResponseFormat(LenientModel):
    type: Literal["text", "json_object"]


class FullChatRequest(ChatRequest):
    """The fields of a request that a teacher with faults reads."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    response_format: _ResponseFormat | None = None

    @property
    def rate_limit_tokens(self) -> int:
        """The tokens that a rate limit charges before the answer: 4 characters are one token."""
        n_characters = sum(len(m.content) for m in self.messages)
        return -(-n_characters // 4) + self.limit


@dataclass(frozen=True, slots=True)
class FakeUsage:
    """The tokens of one answer. `reasoning` is part of `completion`, `cached` of `prompt`."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0

    def to_json(self, style: UsageStyle) -> JsonObject:
        """Return the usage in the format of one provider."""
        usage: JsonObject = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        details = {"completion_tokens_details": {"reasoning_tokens": self.reasoning}}
        match style:
            case "openai":
                cached = {"prompt_tokens_details": {"cached_tokens": self.cached}}
                return {**usage, **cached, **details}
            case "gemini":  # only the total shows that there were reasoning tokens
                return {**usage, "completion_tokens": self.completion - self.reasoning}
            case "deepseek":
                hits, misses = self.cached, self.prompt - self.cached
                cache = {"prompt_cache_hit_tokens": hits, "prompt_cache_miss_tokens": misses}
                return {**usage, **cache, **details}
        return usage


@dataclass(frozen=True, slots=True)
class FakeAnswer:
    """An answer and the usage that is billed for it; None: it is not billed."""

    answer: HttpAnswer
    billed: FakeUsage | None = None


@dataclass(frozen=True, slots=True)
class FakeTeacher:
    """The teacher. `reply(question, seed)` returns its text, or raises ValueError if it cannot.

    reasoning: the model writes reasoning before its answer, and rejects the parameters that
    reasoning models reject. cached: the fraction of prompts whose beginning counts as cached (all
    messages except the last one, or the first half of a single message). Cached tokens cost as much
    as others.
    """

    reply: Callable[[str, int], str]
    faults: Faults
    seed: int
    models: tuple[str, ...]
    reasoning: bool = False
    usage_style: UsageStyle = "openai"
    cached: float = 0.0

    def find_request_error(self, body: JsonObject) -> HttpAnswer | None:
        """Return what is wrong with a request, or None."""
        if error := find_request_error(body, FullChatRequest, self.models):
            return error
        request = FullChatRequest.model_validate(body)
        if self.reasoning and request.max_tokens is not None:
            message = "max_tokens is not supported with this model; use max_completion_tokens."
            return make_error(400, message, "unsupported_parameter", param="max_tokens")
        if self.reasoning and request.temperature not in (None, 1):
            message = "Only the default temperature (1) is supported with this model."
            return make_error(400, message, "unsupported_value", param="temperature")
        return None

    def answer(self, body: JsonObject) -> FakeAnswer:
        """Return the answer to a request for which `find_request_error` returns None."""
        request, name = FullChatRequest.model_validate(body), hash_without_unused_seed(body)
        rng = random.Random(f"{self.seed}:{name}")
        if draw_bool(rng, self.faults.refuse):
            return FakeAnswer(make_error(400, "The content filter blocked this.", "content_filter"))
        question = request.messages[-1].content
        try:
            text = self.reply(question, rng.getrandbits(32))
            reasoning = self._generate_reasoning(question, request, name)
        except ValueError as exc:
            return FakeAnswer(make_error(400, str(exc), "invalid_request"))
        if request.response_format and request.response_format.type == "json_object":
            text = _to_json(text)
        limit = request.limit or NO_LIMIT
        reasoning, reasoning_ended = truncate_text(reasoning, limit)
        n_reasoning = estimate_tokens(reasoning)
        limit -= n_reasoning
        if draw_bool(rng, self.faults.truncate):
            limit = min(limit, estimate_tokens(text) // 2)
        text, text_ended = truncate_text(text, limit)
        n_completion = n_reasoning + estimate_tokens(text)
        if draw_bool(rng, self.faults.overbill):
            n_completion = 100 * (n_completion + limit)
        n_by_message = [estimate_tokens(m.content) for m in request.messages]
        usage = FakeUsage(
            sum(n_by_message), n_completion, n_reasoning, self._draw_cached(name, n_by_message)
        )
        message = {"role": "assistant", "content": text}
        if self.reasoning:
            message["reasoning_content"] = reasoning
        finish_reason = "stop" if text_ended and reasoning_ended else "length"
        completion = build_completion(body, message, finish_reason)
        if not draw_bool(rng, self.faults.no_usage):
            completion["usage"] = usage.to_json(self.usage_style)
        return FakeAnswer((200, completion, {}), usage)

    def _draw_cached(self, name: str, n_by_message: list[int]) -> int:
        """Return the number of cached prompt tokens."""
        if not draw_bool(random.Random(f"{self.seed}:{name}:cache"), self.cached):
            return 0
        return sum(n_by_message[:-1]) if n_by_message[1:] else n_by_message[0] // 2

    def _generate_reasoning(self, question: str, request: FullChatRequest, name: str) -> str:
        """Return drafts of the answer; a higher reasoning_effort gives more of them."""
        if not self.reasoning:
            return ""
        rng = random.Random(f"{self.seed}:{name}:thought")
        n_drafts = _N_DRAFTS[request.reasoning_effort or "medium"]
        return "\n".join(self.reply(question, rng.getrandbits(32)) for _ in range(n_drafts))


def draw_bool(rng: random.Random, fraction: float) -> bool:
    """Return True with the probability `fraction`."""
    return rng.random() < fraction


def _to_json(text: str) -> str:
    rationale, prefix, answer = text.rpartition(ANSWER_PREFIX)
    if not prefix:
        rationale, answer = text, ""
    parts = {"rationale": rationale.strip(), "answer": answer.strip()}
    return json.dumps(parts, ensure_ascii=False)
