"""A call: what the teacher is asked, as one JSON value that names it for ever.

The one idea: the whole request is the name. Whatever changes an answer is in it, sample index
included; an address, a key or a price is not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridgekd.recipe import TeacherOptions
from bridgekd.records import Message

KEY_VERSION = "v1"
LOCAL_FIELDS = ("provider", "sample_index", "extra")  # of the name, but no parameters of the API


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One question for the teacher, at its rank; `sample_index` tells equal samples apart.

    `question` is the question as it stands in the data: recordings are found by it.
    """

    id: str
    rank: int
    messages: tuple[Message, ...]
    sample_index: int = 0
    question: str = ""


def build_request(teacher: TeacherOptions, request: TeacherRequest) -> dict[str, Any]:
    """The whole request as JSON: what the key is made of."""
    return {
        "provider": teacher.provider,
        "model": teacher.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "sample_index": request.sample_index,
    } | teacher.build_request_fields(request.sample_index)


def get_payload(call: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a call that is sent, with what the recipe wants beyond the known fields."""
    sent = {name: value for name, value in call.items() if name not in LOCAL_FIELDS}
    extra: Mapping[str, Any] = call.get("extra", {})
    return sent | dict(extra)


def get_messages(call: Mapping[str, Any]) -> list[Message]:
    """The messages of a stored call."""
    return [Message(m["role"], m["content"]) for m in call["messages"]]


def get_billed_messages(call: Mapping[str, Any]) -> list[Message]:
    """A call's messages, and in one more what else of it a server may read as prompt: a schema,
    tools.
    """
    beside = [call[name] for name in ("response_format", "extra") if call.get(name)]
    n_bytes = sum(len(to_canonical_json(value).encode()) for value in beside)
    return [*get_messages(call), *([Message("system", " " * n_bytes)] if n_bytes else [])]


def get_max_tokens(call: Mapping[str, Any]) -> int:
    """The most tokens a stored call's answer may have, whatever the field was called."""
    return int(call.get("max_tokens") or call.get("max_completion_tokens") or 0)


def to_canonical_json(value: object) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def compute_request_key(call: Mapping[str, Any]) -> str:
    """The name of a call: `v1:` and the SHA-256 of the canonical JSON of the whole request."""
    digest = hashlib.sha256(to_canonical_json(dict(call)).encode("ascii")).hexdigest()
    return f"{KEY_VERSION}:{digest}"
