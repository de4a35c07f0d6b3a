"""Recorded answers: what a row of one says, as the body of a chat completion with its usage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from bridgekd.api_client.chat_completion import MAX_USD, TokenUsage, parse_completion, parse_usage
from bridgekd.records import Message

BYTES_PER_TOKEN_RANGE = 4  # of English text, about; only where a recording has no token counts


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One recorded answer: the body of a chat completion, with its usage where that is known."""

    body: dict[str, Any]
    usage: TokenUsage | None


def parse_recorded_answer(row: Mapping[str, Any]) -> RecordedAnswer:
    """The recording in a row: `text` (and `reasoning`, `finish_reason`) or a whole `response`;
    perhaps `usage` as in a chat completion, and `cost_usd`. ValueError says what is wrong.
    """
    body = row.get("response")
    if body is None:
        if not isinstance(row.get("text"), str):
            raise ValueError("neither 'text' nor 'response'; add the recorded answer")
        message = {"role": "assistant", "content": row["text"]}
        message |= {"reasoning_content": row["reasoning"]} if row.get("reasoning") else {}
        finish = row.get("finish_reason") or "stop"
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    if isinstance(body, str):
        body = json.loads(body)
    if parse_completion(json.dumps(body)).state == "unparsable":
        raise ValueError("'response' is no chat completion; give its whole body, or 'text'")
    usage = row.get("usage") or body.get("usage") or {}
    if not isinstance(usage, dict):
        raise ValueError(
            f"'usage' is {usage!r}, no object with prompt_tokens and completion_tokens"
        )
    if usage.keys() - {"cost"} and parse_usage(usage) is None:
        raise ValueError("'usage' has no whole numbers as prompt_tokens and completion_tokens")
    cost = row.get("cost_usd")
    if cost is not None and (isinstance(cost, bool) or not isinstance(cost, int | float)):
        raise ValueError(f"'cost_usd' is {cost!r}; it must be dollars, 0 or more")
    if cost is not None and not 0 <= cost <= MAX_USD:
        raise ValueError(f"'cost_usd' is {cost!r}; it must be dollars, 0 or more")
    usage = usage | ({} if cost is None else {"cost": cost})
    known = {k: v for k, v in body.items() if k != "usage"}
    return RecordedAnswer(known | ({"usage": usage} if usage else {}), parse_usage(usage))


def fill_token_counts(recording: RecordedAnswer, messages: Sequence[Message]) -> dict[str, Any]:
    """The body, with token counts where there were none: a quarter of the texts' bytes."""
    if recording.usage is not None:
        return recording.body
    message = recording.body["choices"][0]["message"] if recording.body["choices"] else {}
    written = str(message.get("content") or "") + str(message.get("reasoning_content") or "")
    usage = {
        "prompt_tokens": sum(_estimate_tokens(m.content) for m in messages),
        "completion_tokens": _estimate_tokens(written),
        "estimated": True,
    }
    return recording.body | {"usage": recording.body.get("usage", {}) | usage}


def _estimate_tokens(text: str) -> int:
    return ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN_RANGE)
