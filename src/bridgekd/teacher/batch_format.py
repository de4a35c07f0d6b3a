"""The text formats of a batch API: one line per request, one line per result.

Pure and tolerant: servers other than OpenAI's omit fields.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridgekd.api_client.chat_completion import parse_completion, parse_json_object
from bridgekd.api_client.request_key import get_payload
from bridgekd.teacher.transport import PendingRequest

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
METADATA = "bridgekd"  # the metadata key of a batch that holds our token
_ID_LENGTH = 64  # of a custom_id, at the strictest servers


@dataclass(frozen=True, slots=True)
class BatchFile:
    """The requests of one batch: their keys and the file to upload."""

    keys: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as the server reports it. `created_at` is in seconds of the epoch; 0 if unknown."""

    id: str
    status: str
    token: str
    error: str
    file_ids: tuple[str, ...]
    created_at: float


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One line of an output or error file. `status` is None if the request never ran."""

    custom_id: str
    status: int | None
    body: str = ""
    request_id: str | None = None
    error: str = ""


def split_into_files(
    requests: Iterable[PendingRequest], *, max_lines: int, max_bytes: int
) -> Iterator[BatchFile]:
    """Yield files with the requests in their order, each within the limits of one batch.

    A request that is larger than `max_bytes` has a file of its own.
    """
    keys: list[str] = []
    content = bytearray()
    for pending in requests:
        line = _format_line(pending)
        if keys and (len(keys) >= max_lines or len(content) + len(line) > max_bytes):
            yield BatchFile(tuple(keys), bytes(content))
            keys, content = [], bytearray()
        keys.append(pending.key)
        content += line
    if keys:
        yield BatchFile(tuple(keys), bytes(content))


def make_custom_id(key: str) -> str:
    """Return the id of a request in a batch: its key's digest."""
    return key[-_ID_LENGTH:]


def parse_batch(tree: object) -> BatchState | None:
    """Return a batch object; None for anything without an id or a status."""
    if not isinstance(tree, dict):
        return None
    id, status, metadata = tree.get("id"), tree.get("status"), tree.get("metadata")
    if not (id and isinstance(id, str) and isinstance(status, str)):
        return None
    errors = tree.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else None
    messages = [_format_error(row) for row in rows or [] if isinstance(row, dict)]
    files = (tree.get("output_file_id"), tree.get("error_file_id"))
    created_at = tree.get("created_at")
    return BatchState(
        id=id,
        status=status,
        token=str(metadata.get(METADATA)) if isinstance(metadata, dict) else "",
        error="; ".join(messages[:3]),
        file_ids=tuple(str(file_id) for file_id in files if file_id),
        created_at=float(created_at) if isinstance(created_at, int) else 0.0,
    )


def parse_results(text: str) -> Iterator[BatchResult]:
    """Yield the lines of an output or error file. Skip a line that cannot be read.

    An answer is its body, written again as JSON.
    """
    for line in text.split("\n"):  # an answer may hold other line ends, such as U+2028
        if row := parse_json_object(line):
            yield parse_batch_result(row)


def parse_batch_result(row: Mapping[str, Any]) -> BatchResult:
    """Return a line of an output or error file, for which the server's fields may be missing."""
    custom_id, response = str(row.get("custom_id")), row.get("response")
    if not isinstance(response, dict):
        return BatchResult(custom_id, None, error=_format_error(row.get("error")))
    status, request_id = response.get("status_code"), response.get("request_id")
    body = json.dumps(response.get("body"))
    # Without a status, only an answer shows what happened. All else may have been served.
    if not isinstance(status, int):
        status = 200 if parse_completion(body).state != "unparsable" else 504
    request_id = None if request_id is None else str(request_id)
    return BatchResult(custom_id, status, body, request_id)


def _format_line(pending: PendingRequest) -> bytes:
    row = {
        "custom_id": make_custom_id(pending.key),
        "method": "POST",
        "url": ENDPOINT,
        "body": get_payload(pending.body),
    }
    return json.dumps(row).encode() + b"\n"


def _format_error(error: object) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("code")
    return " ".join(str(error or "no details").split())[:300]
