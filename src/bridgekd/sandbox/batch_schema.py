"""The shapes of OpenAI's files and batches: forms, lines, lists. No state.

The one idea: a batch's input is checked as a whole before anything of it is asked, and what is
wrong is told line by line.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from typing import Any

from bridgekd.sandbox.fake_teacher import HttpAnswer, make_error

ENDPOINT = "/v1/chat/completions"
_DAY_S = 86_400


def make_batch(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as a client first sees it."""
    now = int(time.time())
    copied = ("input_file_id", "endpoint", "completion_window", "metadata")
    return {name: asked.get(name) for name in copied} | {
        "id": f"batch_{secrets.token_hex(12)}",
        "object": "batch",
        "status": "validating",
        "errors": None,
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + _DAY_S,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
    }


def parse_requests(
    content: bytes, models: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A batch's requests and what is wrong with its lines."""
    requests: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    seen: set[str] = set()
    for n, raw in enumerate(content.splitlines(), 1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        problem = _find_line_error(line, seen, models)
        if problem:
            code, message, param = problem
            wrong.append({"code": code, "message": message, "param": param, "line": n})
        else:
            seen.add(line["custom_id"])
            requests.append(line)
    if not requests and not wrong:
        said = "The batch input file is empty."
        wrong.append({"code": "empty_file", "message": said, "param": None, "line": None})
    return requests, wrong


def _find_line_error(
    line: object, seen: set[str], models: Sequence[str]
) -> tuple[str, str, str | None] | None:
    """Code, message and parameter of what is wrong with one line."""
    if not isinstance(line, dict):
        return "invalid_json_line", "This line is not parseable as valid JSON.", None
    for name, kind in {"custom_id": str, "method": str, "url": str, "body": dict}.items():
        if not isinstance(line.get(name), kind):
            said = f"Missing required parameter: {name!r}."
            return "missing_required_parameter", said, name
    if line["custom_id"] in seen:
        said = f"The custom_id {line['custom_id']!r} is used before."
        return "duplicate_custom_id", said, "custom_id"
    if line["method"] != "POST" or line["url"] != ENDPOINT:
        return "url_mismatch", f"A request must be a POST to {ENDPOINT}.", "url"
    if line["body"].get("model") not in models:
        said = f"The model {line['body'].get('model')!r} does not exist."
        return "model_not_found", said, "body.model"
    return None


def make_result_line(
    request: Mapping[str, Any],
    answer: HttpAnswer | None = None,
    *,
    said: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One line of an output or an error file."""
    response = None
    if answer is not None:
        status, body, _ = answer
        response = {
            "status_code": status,
            "request_id": f"req_{secrets.token_hex(8)}",
            "body": body,
        }
    return {
        "id": f"batch_req_{secrets.token_hex(8)}",
        "custom_id": request["custom_id"],
        "response": response,
        "error": said,
    }


def to_jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Lines as a file's bytes."""
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def paginate(rows: list[dict[str, Any]], query: Mapping[str, str]) -> HttpAnswer:
    """A part of a list, newest first, as `after` and `limit` ask for it."""
    rows = rows[::-1]
    ids = [row["id"] for row in rows]
    after, limit = query.get("after"), query.get("limit", "20")
    if (after is not None and after not in ids) or not limit.isdecimal() or int(limit) < 1:
        return make_error(400, f"No such after or limit: {dict(query)}.", "invalid_request")
    start = ids.index(after) + 1 if after is not None else 0
    part = rows[start : start + min(100, int(limit))]
    return (
        200,
        {
            "object": "list",
            "data": part,
            "first_id": part[0]["id"] if part else None,
            "last_id": part[-1]["id"] if part else None,
            "has_more": start + len(part) < len(rows),
        },
        {},
    )


def parse_form(content_type: str, raw: bytes) -> dict[str, tuple[str, bytes]]:
    """(file name, content) of each field of a multipart form."""
    message = message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw)
    fields: dict[str, tuple[str, bytes]] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = (part.get_filename() or "", content)
    return fields
