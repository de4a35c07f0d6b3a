"""Reads the raw body of a chat completion: its state, its texts and what it is billed as.

Pure, so that a response which was stored but not yet read when a process died can be read again
at any time. Nothing here raises on a strange body: what cannot be read is `unparsable`.
"""

import json
from dataclasses import dataclass
from typing import Any

from bridgekd.cost.request_cost import compute_cost_microusd, to_microusd_rounded_up
from bridgekd.recipe import Price

# More than any call can have, and little enough for every sum: a server that says so overbills.
MAX_TOKENS, MAX_USD = 10**12, 10**9


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a server says it billed: tokens read from its cache and written to it (None: unsaid) are
    among the prompt's, reasoning tokens among the completion's. `reported_usd` is a cost that some
    servers name themselves.
    """

    n_prompt_tokens: int
    n_completion_tokens: int
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0
    n_cache_write_tokens: int | None = None
    reported_usd: float | None = None


@dataclass(frozen=True, slots=True)
class CompletionBody:
    """What a raw body says. `state` is answered, truncated, refused or unparsable; `usage` is None
    where the server sent none that can be used.
    """

    state: str
    text: str = ""
    reasoning: str = ""
    usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True)
class RequestCost:
    """What one settled call is charged: tokens and micro-dollars."""

    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    cost_microusd: int = 0
    n_cached_tokens: int = 0
    n_reasoning_tokens: int = 0


def parse_json(raw: str) -> Any:
    """The JSON value of a body from outside; None where it is none, or nested beyond all reason."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def parse_completion(raw: str) -> CompletionBody:
    """The reply in a raw response body.

    Finished by length is truncated; a content filter, a refusal or no choice at all is refused;
    anything that is not a chat completion is unparsable.
    """
    body = parse_json(raw)
    if not isinstance(body, dict) or "choices" not in body or find_error(raw):
        return CompletionBody("unparsable")
    usage = parse_usage(body.get("usage"))
    choices = body["choices"]
    if not choices:
        return CompletionBody("refused", "", "", usage)
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return CompletionBody("unparsable")
    text = _text(message.get("content"))
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    state = {"length": "truncated", "content_filter": "refused"}.get(
        str(choice.get("finish_reason")), "answered"
    )
    if refusal := _text(message.get("refusal")):
        state, text = "refused", text or refusal
    return CompletionBody(state, text, reasoning, usage)


def find_error(raw: str) -> str:
    """What went wrong on the other side, where a body with status 200 says so; else "".

    Gateways that have begun to answer cannot take their status back.
    """
    body = parse_json(raw)
    if not isinstance(body, dict):
        return ""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = body.get("error") or (choice.get("error") if isinstance(choice, dict) else None)
    if not error and isinstance(choice, dict) and choice.get("finish_reason") == "error":
        error = "finish_reason: error"
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300] if error else ""


def compute_request_cost(
    reply: CompletionBody, price: Price | None, *, max_cost: RequestCost
) -> RequestCost:
    """The bill of a reply at `price`; where the server sent no usage, `max_cost` (the reserve).

    Without a price a cost that the server reports counts, as far as it was reserved.
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


def parse_usage(usage: Any) -> TokenUsage | None:
    """The usage object of a reply, or None where it has no usable counts.

    Some servers (Gemini, xAI) leave reasoning tokens out of `completion_tokens` but bill them: the
    total tells. Cached tokens stand in `prompt_tokens_details`, at DeepSeek beside the counts.
    """
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
    left_out = max(0, (_count(usage, "total_tokens") or 0) - prompt - completion)
    if reasoning > completion + left_out:
        left_out = reasoning
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens") or 0
    return TokenUsage(
        prompt,
        completion + left_out,
        min(cached, prompt),
        min(max(reasoning, left_out), completion + left_out),
        _count(details, "cache_write_tokens"),
        _amount(usage.get("cost")),
    )


def _count(fields: Any, name: str) -> int | None:
    """A count of tokens in a JSON object; None for anything else."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return min(value, MAX_TOKENS)


def _amount(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(min(value, MAX_USD))


def _text(value: Any) -> str:
    """A text field or a list of text parts; lone surrogates, which no file takes, replaced."""
    if isinstance(value, list):
        value = "".join(
            part["text"]
            for part in value
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
