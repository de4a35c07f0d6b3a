"""What the sandbox's teacher answers: a pure function of the seed and the request.

The one idea: whatever belongs to the answer (its text, its faults, its usage) is drawn from (seed,
request), so the same request has the same answer whenever and by whichever way it is asked, live
or in a batch. What is billed is what was served: thinking counts, a wrong usage does not.
"""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridgekd.prompts import ANSWER_PREFIX

UsageStyle = Literal["openai", "gemini", "anthropic", "deepseek"]
HttpAnswer = tuple[int, Mapping[str, Any], Mapping[str, str]]  # status, body, headers

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NO_LIMIT = 1 << 20
_REASONING_LENGTHS = {
    "none": 0,
    "minimal": 1,
    "low": 1,
    "medium": 2,
    "high": 4,
}  # a thought is that many


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of calls, each in [0, 1], and times in seconds.

    Of the line, drawn at each attempt: `throttle` 429 with Retry-After, `error` 500 or 503,
    `silence` billed but never answered, `drop` billed and then the connection closed. Of the
    answer, drawn once a request: `cut` half of the text with finish_reason length, `refuse` 400
    by a content filter, `overbill` usage times 100, `no_usage` no usage at all. `latency_s` is
    the median of a lognormal delay of shape `spread`. `quota_after` calls are taken before the
    quota is exhausted. A batch has only those of the answer, and its own `BatchFaults`.
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
    spread: float = 0.0
    retry_after_s: float = 1.0
    quota_after: int | None = None


@dataclass(frozen=True, slots=True)
class FakeUsage:
    """Tokens of one answer. `thinking` is part of `completion`, `cached` of `prompt`."""

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0

    def to_json(self, style: UsageStyle) -> dict[str, Any]:
        """The usage as one provider words it."""
        told: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        thinking = {"completion_tokens_details": {"reasoning_tokens": self.reasoning}}
        if style == "openai":
            return told | {"prompt_tokens_details": {"cached_tokens": self.cached}} | thinking
        if style == "gemini":  # the total alone says that there was thinking
            return told | {"completion_tokens": self.completion - self.reasoning}
        if style == "deepseek":
            hit, miss = self.cached, self.prompt - self.cached
            return (
                told | {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": miss} | thinking
            )
        return told


@dataclass(frozen=True, slots=True)
class FakeAnswer:
    """An answer and what it is billed for; `billed` None: nothing."""

    answer: HttpAnswer
    billed: FakeUsage | None = None


@dataclass(frozen=True, slots=True)
class FakeTeacher:
    """Who answers: `reply(question, seed)` and how it is said.

    `reasoning`: it thinks before it answers, and refuses the parameters that such models refuse.
    `cached`: the share of prompts of which the beginning is told as cached: all messages but the
    last one or, where there is only one, the first half of it. Cached tokens cost what others do.
    """

    reply: Callable[[str, int], str]
    faults: Faults
    seed: int
    models: tuple[str, ...]
    reasoning: bool = False
    usage_style: UsageStyle = "openai"
    cached: float = 0.0

    def find_request_error(self, body: Mapping[str, Any]) -> HttpAnswer | None:
        """What is wrong with a request; None: it can be answered."""
        if body.get("model") not in self.models:
            return make_error(
                404, f"The model {body.get('model')!r} does not exist.", "model_not_found"
            )
        if not _is_chat(body.get("messages")):
            return make_error(
                400, "messages must be a list of role and content.", "invalid_request"
            )
        for name, is_right in _PARAMETERS.items():
            if body.get(name) is not None and not is_right(body[name]):
                said = f"Invalid value for {name}: {body[name]!r}."
                return make_error(400, said, "invalid_request", param=name)
        return self._find_rejected_parameter(body) if self.reasoning else None

    def answer(self, body: Mapping[str, Any]) -> FakeAnswer:
        """The answer to a request that `complaint` lets pass."""
        name = _get_answer_seed(body)
        own = random.Random(f"{self.seed}:{name}")
        if draw_bool(own, self.faults.refuse):
            return FakeAnswer(make_error(400, "The content filter blocked this.", "content_filter"))
        question = str(body["messages"][-1]["content"])
        try:
            text = self.reply(question, own.getrandbits(32))
            thought = self._generate_reasoning(question, body, name)
        except ValueError as exc:
            return FakeAnswer(make_error(400, str(exc), "invalid_request"))
        if (body.get("response_format") or {}).get("type") == "json_object":
            text = _to_json(text)
        limit = _limit(body) or _NO_LIMIT
        thought, thinking_ended = _truncate(thought, limit)
        n_thinking = count_tokens(thought)
        limit -= n_thinking
        if draw_bool(own, self.faults.truncate):
            limit = min(limit, count_tokens(text) // 2)
        text, ended = _truncate(text, limit)
        n_completion = n_thinking + count_tokens(text)
        if draw_bool(own, self.faults.overbill):
            n_completion = 100 * (n_completion + limit)
        usage = FakeUsage(count_prompt(body), n_completion, n_thinking, self._n_cached(body, name))
        message = {"role": "assistant", "content": text}
        if self.reasoning:
            message["reasoning_content"] = thought
        finish = "stop" if ended and thinking_ended else "length"
        told = None if draw_bool(own, self.faults.no_usage) else usage.to_json(self.usage_style)
        return FakeAnswer((200, _completion(body, message, finish, told), {}), usage)

    def _find_rejected_parameter(self, body: Mapping[str, Any]) -> HttpAnswer | None:
        if body.get("max_tokens") is not None:
            said = "max_tokens is not supported with this model; use max_completion_tokens."
            return make_error(400, said, "unsupported_parameter", param="max_tokens")
        if body.get("temperature") not in (None, 1):
            said = "Only the default temperature (1) is supported with this model."
            return make_error(400, said, "unsupported_value", param="temperature")
        return None

    def _generate_reasoning(self, question: str, body: Mapping[str, Any], name: str) -> str:
        """Drafts of the answer, more of them the higher the reasoning_effort."""
        if not self.reasoning:
            return ""
        dice = random.Random(f"{self.seed}:{name}:thought")
        n_drafts = _REASONING_LENGTHS[body.get("reasoning_effort") or "medium"]
        return "\n".join(self.reply(question, dice.getrandbits(32)) for _ in range(n_drafts))

    def _n_cached(self, body: Mapping[str, Any], name: str) -> int:
        if not draw_bool(random.Random(f"{self.seed}:{name}:cache"), self.cached):
            return 0
        *first, last = (count_tokens(m["content"]) for m in body["messages"])
        return sum(first) if first else last // 2


def count_tokens(text: str) -> int:
    """Words and punctuation marks: what this server bills."""
    return len(_TOKEN.findall(text))


def count_prompt(body: Mapping[str, Any]) -> int:
    """The tokens of a request's messages."""
    return sum(count_tokens(m["content"]) for m in body["messages"])


def count_requested_tokens(body: Mapping[str, Any]) -> int:
    """What a request counts before it is answered, as a rate limit guesses it."""
    n_characters = sum(len(m["content"]) for m in body["messages"])
    return -(-n_characters // 4) + _limit(body)


def hash_body(body: Mapping[str, Any]) -> str:
    """A request's name in `calls` and `served`: the hash of its whole body."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def draw_bool(dice: random.Random, share: float) -> bool:
    """Whether a draw falls into this share."""
    return dice.random() < share


def make_error(
    status: int,
    message: str,
    code: str,
    headers: Mapping[str, str] | None = None,
    *,
    param: str | None = None,
) -> HttpAnswer:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": code, "param": param, "code": code}}
    return status, body, headers or {}


def _get_answer_seed(body: Mapping[str, Any]) -> str:
    """What the answer hangs on: the request, but for a `seed` where nothing is sampled."""
    temperature = body.get("temperature")
    if "seed" in body and temperature is not None and temperature == 0:
        body = {name: value for name, value in body.items() if name != "seed"}
    return hash_body(body)


def _completion(
    body: Mapping[str, Any],
    message: Mapping[str, str],
    finish: str,
    usage: Mapping[str, Any] | None,
) -> dict[str, Any]:
    found = {
        "id": f"chatcmpl-{hash_body(body)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    return found if usage is None else found | {"usage": usage}


def _truncate(text: str, limit: int) -> tuple[str, bool]:
    """The text's first `limit` tokens, and whether that is all of it."""
    marks = list(_TOKEN.finditer(text))
    if len(marks) <= limit:
        return text, True
    return text[: marks[limit - 1].end() if limit else 0], False


def _to_json(text: str) -> str:
    rationale, mark, answer = text.rpartition(ANSWER_PREFIX)
    if not mark:
        rationale, answer = text, ""
    return json.dumps(
        {"rationale": rationale.strip(), "answer": answer.strip()}, ensure_ascii=False
    )


def _limit(body: Mapping[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)


def _is_chat(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages)
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _make_choice_check(values: Sequence[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in values


_PARAMETERS: dict[str, Callable[[Any], bool]] = {
    "max_tokens": lambda value: _is_whole(value) and value >= 0,
    "max_completion_tokens": lambda value: _is_whole(value) and value >= 0,
    "seed": _is_whole,
    "temperature": lambda value: isinstance(value, int | float) and 0 <= value <= 2,
    "reasoning_effort": _make_choice_check(tuple(_REASONING_LENGTHS)),
    "response_format": lambda value: (
        isinstance(value, dict) and value.get("type") in ("text", "json_object")
    ),
}
