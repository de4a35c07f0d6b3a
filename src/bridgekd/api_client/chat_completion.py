"""Reads the body of a chat completion: its state, its texts and its cost.

Pure, so a response that was stored but not read when a process died can be read at any time.
Nothing here raises on a strange body: a body that cannot be read is `unparsable`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridgekd.cost.request_cost import compute_cost_microusd, to_microusd_rounded_up
from bridgekd.recipe import Price

# More than any request can have, and small enough for every sum in SQLite: such a server overbills.
MAX_TOKENS, MAX_USD = 10**12, 10**9


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The usage that a server reports.

    Cached and cache-write tokens (None: not reported) are part of the prompt, reasoning tokens are
    part of the completion. `reported_usd` is the cost that some servers report.
    """

    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    n_cache_write_tokens: int | None = None
    reported_usd: float | None = None


@dataclass(frozen=True, slots=True)
class CompletionBody:
    """The content of a body. `state` is answered, truncated, refused or unparsable; `usage` is None
    if the server sent no usable one.
    """

    state: str
    text: str = ""
    reasoning: str = ""
    usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True)
class RequestCost:
    """Tokens and micro-dollars of one request: what it is charged, or the maximum."""

    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    cost_microusd: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0

    @property
    def n_tokens(self) -> int:
        return self.n_prompt_tokens + self.n_completion_tokens


def parse_json(raw: str) -> Any:
    """Return a JSON value; None if the text is not JSON or is nested too deeply."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def parse_json_object(raw: str) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    value = parse_json(raw)
    return value if isinstance(value, dict) else {}


def parse_completion(raw: str) -> CompletionBody:
    """Return the content of a response body.

    Finished by length is truncated. A content filter, a refusal or an empty list of choices is
    refused. Anything that is not a chat completion is unparsable. A prompt has tokens, so a usage
    without prompt tokens was not counted and is no usage.
    """
    body = parse_json_object(raw)
    if "choices" not in body or find_error(body):
        return CompletionBody("unparsable")
    usage = parse_usage(body.get("usage"))
    if usage is not None and usage.n_prompt_tokens == 0:
        usage = None
    if not body["choices"]:
        return CompletionBody("refused", usage=usage)
    choice = _get_first_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        return CompletionBody("unparsable")
    text, thinking = _split_content(message.get("content"))
    reasoning = (
        _get_text(message.get("reasoning_content"))
        or _get_text(message.get("reasoning"))
        or thinking
    )
    state = {"length": "truncated", "content_filter": "refused"}.get(
        str(choice.get("finish_reason")), "answered"
    )
    if refusal := _get_text(message.get("refusal")):
        state, text = "refused", text or refusal
    return CompletionBody(state, text, reasoning, usage)


def find_error(body: Mapping[str, Any]) -> str:
    """Return the error that a body with status 200 reports; "" if there is none.

    A gateway that has begun to answer cannot change the status any more.
    """
    choice = _get_first_choice(body)
    error = body.get("error") or choice.get("error")
    if not error and choice.get("finish_reason") == "error":
        error = "finish_reason: error"
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300] if error else ""


def compute_request_cost(
    reply: CompletionBody, price: Price | None, *, max_cost: RequestCost
) -> RequestCost:
    """Return the cost of a reply at `price`; `max_cost` (the reserve) if it has no usage.

    Without a price, the cost is what the server reports, up to the reserve.
    """
    usage = reply.usage
    if usage is None:
        return max_cost
    cost = compute_cost_microusd(
        price,
        usage.n_prompt_tokens,
        usage.n_completion_tokens,
        n_cached=usage.n_cached_tokens,
        n_written=usage.n_cache_write_tokens,
        n_reasoning=usage.n_reasoning_tokens,
    )
    if price is None and usage.reported_usd is not None:
        cost = min(max_cost.cost_microusd, to_microusd_rounded_up(usage.reported_usd))
    return RequestCost(
        usage.n_prompt_tokens,
        usage.n_completion_tokens,
        cost,
        usage.n_cached_tokens,
        usage.n_reasoning_tokens,
    )


def parse_usage(usage: object) -> TokenUsage | None:
    """Return the usage object of a reply; None without usable counts.

    Some servers (Gemini, xAI) bill reasoning tokens but leave them out of `completion_tokens`; the
    total shows them. DeepSeek puts cached tokens beside the counts, others into
    `prompt_tokens_details`.
    """
    prompt, completion = _get_count(usage, "prompt_tokens"), _get_count(usage, "completion_tokens")
    if not isinstance(usage, dict) or prompt is None or completion is None:
        return None
    reasoning = _get_count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
    left_out = max(0, (_get_count(usage, "total_tokens") or 0) - prompt - completion)
    if reasoning > completion + left_out:
        left_out = reasoning
    details = usage.get("prompt_tokens_details")
    cached = _get_count(details, "cached_tokens")
    if cached is None:
        cached = _get_count(usage, "prompt_cache_hit_tokens") or 0
    return TokenUsage(
        prompt,
        completion + left_out,
        min(cached, prompt),
        min(max(reasoning, left_out), completion + left_out),
        _get_count(details, "cache_write_tokens"),
        _parse_usd(usage.get("cost")),
    )


def _get_first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _get_count(fields: object, name: str) -> int | None:
    """Return a count of tokens in a JSON object, also one such as 50.0; None for anything else."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return min(value, MAX_TOKENS) if type(value) is int and value >= 0 else None


def _parse_usd(value: Any) -> float | None:
    return float(min(value, MAX_USD)) if type(value) in (int, float) and value >= 0 else None


def _split_content(content: object) -> tuple[str, str]:
    """Return the text and the reasoning of a content, which may be a list of parts.

    A part of type "thinking" has its text, or a list of text parts, in the field "thinking".
    """
    if not isinstance(content, list):
        return _get_text(content), ""
    parts = [part for part in content if isinstance(part, dict)]
    thinking = [part.get("thinking") for part in parts if part.get("type") == "thinking"]
    text = _get_text([part for part in parts if part.get("type") != "thinking"])
    return text, "".join(map(_get_text, thinking))


def _get_text(value: object) -> str:
    """Return a text field or a joined list of text parts.

    Lone surrogates, which cannot be written to a file, become "?".
    """
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict)]
        value = "".join(text for text in parts if isinstance(text, str))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
