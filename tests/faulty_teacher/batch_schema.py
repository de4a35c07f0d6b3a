"""The formats of OpenAI's files and batches: forms, lines and lists. No state.

A batch input is checked completely before any request of it is answered. Errors name their lines.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes

from openai.types import Batch, BatchError, BatchRequestCounts, FileObject

from bridgekd.sandbox.teacher_server import HttpAnswer, JsonObject, make_error

ENDPOINT = "/v1/chat/completions"
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line of a batch input."""

    custom_id: str
    body: JsonObject


def make_batch(input_file_id: str, metadata: object) -> Batch:
    """Return a new batch."""
    now = int(time.time())
    return Batch(
        id=f"batch_{secrets.token_hex(12)}",
        object="batch",
        status="validating",
        input_file_id=input_file_id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata=metadata if isinstance(metadata, dict) else None,
        created_at=now,
        expires_at=now + _DAY_S,
        request_counts=BatchRequestCounts(total=0, completed=0, failed=0),
    )


def parse_requests(
    content: bytes, models: Sequence[str]
) -> tuple[list[BatchRequest], list[BatchError]]:
    """Return the requests of a batch input, and the errors of its lines."""
    requests: dict[str, BatchRequest] = {}
    errors: list[BatchError] = []
    for n, raw in enumerate(content.splitlines(), 1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        if error := _find_line_error(line, requests, models):
            errors.append(error.model_copy(update={"line": n}))
        else:
            requests[line["custom_id"]] = BatchRequest(line["custom_id"], line["body"])
    if not requests and not errors:
        errors.append(BatchError(code="empty_file", message="The batch input file is empty."))
    return list(requests.values()), errors


def _find_line_error(
    line: object, earlier: Mapping[str, BatchRequest], models: Sequence[str]
) -> BatchError | None:
    if not isinstance(line, dict):
        message = "This line is not parseable as valid JSON."
        return BatchError(code="invalid_json_line", message=message)
    for name, kind in {"custom_id": str, "method": str, "url": str, "body": dict}.items():
        if not isinstance(line.get(name), kind):
            message = f"Missing required parameter: {name!r}."
            return BatchError(code="missing_required_parameter", message=message, param=name)
    if line["custom_id"] in earlier:
        message = f"The custom_id {line['custom_id']!r} is used before."
        return BatchError(code="duplicate_custom_id", message=message, param="custom_id")
    if line["method"] != "POST" or line["url"] != ENDPOINT:
        message = f"A request must be a POST to {ENDPOINT}."
        return BatchError(code="url_mismatch", message=message, param="url")
    if line["body"].get("model") not in models:
        message = f"The model {line['body'].get('model')!r} does not exist."
        return BatchError(code="model_not_found", message=message, param="body.model")
    return None


def make_result_line(
    request: BatchRequest,
    answer: HttpAnswer | None = None,
    *,
    error: Mapping[str, str] | None = None,
) -> JsonObject:
    """Return one line of an output file or an error file."""
    response = None
    if answer is not None:
        status, body, _ = answer
        request_id = f"req_{secrets.token_hex(8)}"
        response = {"status_code": status, "request_id": request_id, "body": body}
    return {
        "id": f"batch_req_{secrets.token_hex(8)}",
        "custom_id": request.custom_id,
        "response": response,
        "error": error,
    }


def paginate(objects: Sequence[Batch | FileObject], query: Mapping[str, str]) -> HttpAnswer:
    """Return the part of a list that `after` and `limit` select, newest first."""
    objects = objects[::-1]
    ids = [item.id for item in objects]
    after, limit = query.get("after"), query.get("limit", "20")
    if (after is not None and after not in ids) or not limit.isdecimal() or int(limit) < 1:
        return make_error(400, f"No such after or limit: {dict(query)}.", "invalid_request")
    start = ids.index(after) + 1 if after is not None else 0
    end = start + min(100, int(limit))
    body = {
        "object": "list",
        "data": [item.model_dump() for item in objects[start:end]],
        "first_id": ids[start] if ids[start:end] else None,
        "last_id": ids[start:end][-1] if ids[start:end] else None,
        "has_more": end < len(ids),
    }
    return 200, body, {}


def parse_form(content_type: str, raw: bytes) -> dict[str, tuple[str, bytes]]:
    """Return (file name, content) of each field of a multipart form."""
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw)
    fields: dict[str, tuple[str, bytes]] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = (part.get_filename() or "", content)
    return fields
