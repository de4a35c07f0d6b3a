"""Recorded answers: a row of a file as the body of a chat completion with its usage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from bridgekd.api_client.chat_completion import MAX_USD, TokenUsage, parse_completion, parse_usage
from bridgekd.messages import format_value
from bridgekd.records import Message

BYTES_PER_TOKEN = 4  # roughly, in English; used only for a recording without token counts


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The body of a chat completion, with its usage if that is known."""

    body: Mapping[str, Any]
    usage: TokenUsage | None


def parse_recorded_answer(row: Mapping[str, Any]) -> RecordedAnswer:
    """Return the recording in a row; raise ValueError with what is wrong.

    A row has `text` (and optionally `reasoning`, `finish_reason`) or a complete `response`, and
    optionally `usage`, as in a chat completion, and `cost_usd`.
    """
    body = row.get("response")
    if body is None:
        if not isinstance(row.get("text"), str):
            raise ValueError("neither 'text' nor 'response'; add the recorded answer")
        message = {"role": "assistant", "content": row["text"]}
        message |= {"reasoning_content": row["reasoning"]} if row.get("reasoning") else {}
        finish_reason = row.get("finish_reason") or "stop"
        body = {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}
    if isinstance(body, str):
        body = json.loads(body)
    if parse_completion(json.dumps(body)).state == "unparsable":
        raise ValueError("'response' is not a chat completion; set its complete body, or 'text'")
    usage = row.get("usage") or body.get("usage") or {}
    if not isinstance(usage, dict):
        raise ValueError(
            f"'usage' is {format_value(usage)}, not an object with prompt_tokens and "
            "completion_tokens"
        )
    if usage.keys() - {"cost"} and parse_usage(usage) is None:
        raise ValueError("'usage' needs integers as prompt_tokens and completion_tokens")
    cost = row.get("cost_usd")
    if cost is not None:
        if type(cost) not in (int, float) or not 0 <= cost <= MAX_USD:
            raise ValueError(f"'cost_usd' is {format_value(cost)}; it must be dollars, 0 or more")
        usage = usage | {"cost": cost}
    fields = {name: value for name, value in body.items() if name != "usage"}
    return RecordedAnswer(fields | ({"usage": usage} if usage else {}), parse_usage(usage))


def fill_token_counts(
    recording: RecordedAnswer, messages: Sequence[Message]
) -> Mapping[str, object]:
    """Return the body; without recorded token counts, estimate them from the texts' bytes."""
    if recording.usage is not None:
        return recording.body
    message = recording.body["choices"][0]["message"] if recording.body["choices"] else {}
    text = str(message.get("content") or "") + str(message.get("reasoning_content") or "")
    usage = {
        "prompt_tokens": sum(_estimate_tokens(m.content) for m in messages),
        "completion_tokens": _estimate_tokens(text),
        "estimated": True,
    }
    return {**recording.body, "usage": recording.body.get("usage", {}) | usage}


def _estimate_tokens(text: str) -> int:
    return ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)
