"""What goes to a batch server and comes back, as text: a line a call, a line an outcome.

Pure, and careful: servers other than OpenAI's leave things out.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bridgekd.api_client.chat_completion import parse_completion
from bridgekd.api_client.request_key import get_payload
from bridgekd.teacher.pending_request import PendingRequest

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
METADATA = "bridgekd"  # under this name a batch carries our token
_ID_LENGTH = 64  # of a custom_id, at the strictest servers


@dataclass(frozen=True, slots=True)
class BatchFile:
    """The calls of one batch: their keys and the file to upload."""

    keys: tuple[str, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as the server tells it; `said` is what it found wrong."""

    id: str
    status: str
    token: str
    error: str
    file_ids: tuple[str, ...]
    made_at: float  # seconds of the epoch; 0 where the server does not say


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One line of an output or error file. `status` is None where the call never ran."""

    custom_id: str
    status: int | None
    body: str = ""
    request_id: str | None = None
    error: str = ""


def split_into_files(
    orders: Iterable[PendingRequest], *, most_lines: int, most_bytes: int
) -> Iterator[BatchFile]:
    """The orders in their order, cut into parts within the limits of one batch."""
    keys: list[str] = []
    lines: list[bytes] = []
    n_bytes = 0
    for order in orders:
        line = _line(order)
        if keys and (len(keys) >= most_lines or n_bytes + len(line) > most_bytes):
            yield BatchFile(tuple(keys), b"".join(lines))
            keys, lines, n_bytes = [], [], 0
        keys.append(order.key)
        lines.append(line)
        n_bytes += len(line)
    if keys:
        yield BatchFile(tuple(keys), b"".join(lines))


def make_custom_id(key: str) -> str:
    """What a call is called in a batch: its key's digest."""
    return key[-_ID_LENGTH:]


def parse_json_object(text: str) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_batch(tree: Any) -> BatchState | None:
    """A batch object; None for anything without an id or a status."""
    if not isinstance(tree, dict):
        return None
    name, status, metadata = tree.get("id"), tree.get("status"), tree.get("metadata")
    if not (name and isinstance(name, str) and isinstance(status, str)):
        return None
    errors = tree.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else None
    said = [_format_error(row) for row in rows or [] if isinstance(row, dict)]
    files = (tree.get("output_file_id"), tree.get("error_file_id"))
    return BatchState(
        id=name,
        status=status,
        token=str(metadata.get(METADATA)) if isinstance(metadata, dict) else "",
        error="; ".join(said[:3]),
        file_ids=tuple(str(file_id) for file_id in files if file_id),
        made_at=float(made) if isinstance(made := tree.get("created_at"), int) else 0.0,
    )


def parse_results(text: str) -> Iterator[BatchResult]:
    """The lines of an output or error file; what cannot be read is left out.

    An answer is kept as its body, spelt again as JSON.
    """
    for line in text.split("\n"):  # an answer may hold other line ends, such as U+2028
        row = parse_json_object(line)
        if not row:
            continue
        name, response = str(row.get("custom_id")), row.get("response")
        if not isinstance(response, dict):
            yield BatchResult(name, None, error=_format_error(row.get("error")))
            continue
        status, request_id = response.get("status_code"), response.get("request_id")
        body = json.dumps(response.get("body"))
        if not isinstance(status, int):  # an answer shows itself; all else may have been served
            status = 200 if parse_completion(body).state != "unparsable" else 504
        yield BatchResult(
            custom_id=name,
            status=status,
            body=body,
            request_id=None if request_id is None else str(request_id),
        )


def _line(order: PendingRequest) -> bytes:
    row = {
        "custom_id": make_custom_id(order.key),
        "method": "POST",
        "url": ENDPOINT,
        "body": get_payload(order.body),
    }
    return json.dumps(row).encode() + b"\n"


def _format_error(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error.get("code")
    return " ".join(str(error or "it says no more").split())[:300]
