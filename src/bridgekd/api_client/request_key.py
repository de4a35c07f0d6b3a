"""Requests to the teacher as JSON, and the key that identifies each request in the ledger.

The one idea: the key is a hash of the complete request. Everything that changes an answer is in
it, the sample index included. An address, an API key and a price are not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridgekd.recipe import TeacherOptions
from bridgekd.records import Message

KEY_VERSION = "v1"
LOCAL_FIELDS = ("provider", "sample_index", "extra")  # in the key, but not parameters of the API


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One question for the teacher, at its rank. `sample_index` separates samples of one prompt.

    `question` is the text in the data set; recordings are matched by it.
    """

    id: str
    rank: int
    messages: tuple[Message, ...]
    sample_index: int = 0
    question: str = ""


def build_request(teacher: TeacherOptions, request: TeacherRequest) -> dict[str, object]:
    """Return the complete request as JSON; its hash is the key."""
    return {
        "provider": teacher.provider,
        "model": teacher.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "sample_index": request.sample_index,
    } | teacher.build_request_fields(request.sample_index)


def get_payload(request: Mapping[str, Any]) -> dict[str, object]:
    """Return the part of a request that is sent, with the recipe's `extra` fields at top level."""
    sent = {name: value for name, value in request.items() if name not in LOCAL_FIELDS}
    return {**sent, **request.get("extra", {})}


def get_messages(request: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a stored request."""
    return [Message(m["role"], m["content"]) for m in request["messages"]]


def get_billed_messages(request: Mapping[str, Any]) -> list[Message]:
    """Return the messages, and one more as long as all else that a server may bill as prompt.

    A response schema and tools (in `extra`) are such text.
    """
    others = [request[name] for name in ("response_format", "extra") if request.get(name)]
    n_bytes = sum(len(to_canonical_json(value).encode()) for value in others)
    return [*get_messages(request), *([Message("system", " " * n_bytes)] if n_bytes else [])]


def get_max_tokens(request: Mapping[str, Any]) -> int:
    """Return a stored request's limit on completion tokens, under either name of the field."""
    return int(request.get("max_tokens") or request.get("max_completion_tokens") or 0)


def to_canonical_json(value: object) -> str:
    """Return the one spelling of a JSON value: sorted keys, no spaces, ASCII only.

    >>> to_canonical_json({"b": 1, "a": "é"})
    '{"a":"\\\\u00e9","b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def compute_request_key(request: Mapping[str, Any]) -> str:
    """Return `v1:` and the SHA-256 of the canonical JSON of the complete request."""
    digest = hashlib.sha256(to_canonical_json(dict(request)).encode("ascii")).hexdigest()
    return f"{KEY_VERSION}:{digest}"
