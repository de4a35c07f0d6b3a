"""Reads the raw body of a chat completion: its state, its texts and what it is billed as.

Pure, so that a response which was stored but not yet read when a process died can be read again
at any time. Nothing here raises on a strange body: what cannot be read is `unparsable`.
"""

import json
from dataclasses import dataclass
from typing import Any

from bridgekd.config import Price
from bridgekd.core.costs import cost_microusd


@dataclass(frozen=True, slots=True)
class Reply:
    """What a raw body says. `state` is answered, truncated, refused or unparsable.

    Token counts are None where the server sent no usable usage.
    """

    state: str
    text: str = ""
    reasoning: str = ""
    n_prompt_tokens: int | None = None
    n_completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What one settled call is charged: tokens and micro-dollars."""

    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    cost_microusd: int = 0


def read_reply(raw: str) -> Reply:
    """The reply in a raw response body.

    Finished by length is truncated; a content filter, a refusal or no choice at all is refused;
    anything that is not a chat completion is unparsable.
    """
    try:
        body = json.loads(raw)
    except ValueError:
        return Reply("unparsable")
    if not isinstance(body, dict) or body.get("error") or "choices" not in body:
        return Reply("unparsable")
    n_prompt, n_completion = _usage(body.get("usage"))
    choices = body["choices"]
    if not choices:
        return Reply("refused", "", "", n_prompt, n_completion)
    choice = choices[0] if isinstance(choices, list) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply("unparsable")
    text = _text(message.get("content"))
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    state = {"length": "truncated", "content_filter": "refused"}.get(
        str(choice.get("finish_reason")), "answered"
    )
    if refusal := _text(message.get("refusal")):
        state, text = "refused", text or refusal
    return Reply(state, text, reasoning, n_prompt, n_completion)


def bill_of(reply: Reply, price: Price | None, *, most: Bill) -> Bill:
    """The bill of a reply at `price`; where the server sent no usage, `most` (the reserve)."""
    if reply.n_prompt_tokens is None or reply.n_completion_tokens is None:
        return most
    cost = cost_microusd(price, reply.n_prompt_tokens, reply.n_completion_tokens)
    return Bill(reply.n_prompt_tokens, reply.n_completion_tokens, cost)


def _usage(usage: Any) -> tuple[int | None, int | None]:
    """Prompt and completion tokens as billed, or None for both.

    Some servers leave reasoning tokens out of `completion_tokens` but bill them: the total tells.
    """
    if not isinstance(usage, dict):
        return None, None
    prompt, completion, total = (
        value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
        for value in map(usage.get, ("prompt_tokens", "completion_tokens", "total_tokens"))
    )
    if prompt is None or completion is None:
        return None, None
    return prompt, max(completion, (total or 0) - prompt)


def _text(value: Any) -> str:
    """A text field or a list of text parts; lone surrogates, which no file takes, replaced."""
    if isinstance(value, list):
        value = "".join(
            part["text"]
            for part in value
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
