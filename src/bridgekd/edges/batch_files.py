"""The files of a batch: a line for each call on the way out, a line for each outcome back."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridgekd.core.calls import payload_of
from bridgekd.edges.lines import Outcome
from bridgekd.edges.orders import Order

URL = "/v1/chat/completions"
MOST_LINES, MOST_BYTES = 50_000, 100_000_000  # in one file; OpenAI takes twice the bytes
_REFUSED = (400, 413, 422, 451)


def parts_of(orders: Iterable[Order]) -> Iterator[dict[str, str]]:
    """The lines of one file after the other, by key, each file within the limits of one batch."""
    part: dict[str, str] = {}
    n_bytes = 0
    for order in orders:
        line = _line(order)
        if part and (len(part) >= MOST_LINES or n_bytes + len(line) > MOST_BYTES):
            yield part
            part, n_bytes = {}, 0
        part[order.key] = line
        n_bytes += len(line)
    if part:
        yield part


def outcome_of_line(line: str) -> tuple[str, Outcome]:
    """The key and the outcome in one line of an output or error file.

    An answer is kept as its body, spelt again as JSON. What never ran may be asked again.
    """
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return "", Outcome("unknown", reason="a line that is no JSON object")
    key, response = str(row.get("custom_id")), row.get("response")
    if not isinstance(response, Mapping):
        return key, Outcome("failed", reason=_said(row))
    status, body = response.get("status_code"), response.get("body")
    raw, name = json.dumps(body), response.get("request_id")
    if status == 200:
        return key, Outcome("answered", raw=raw, request_id=None if name is None else str(name))
    said = _said(body) if isinstance(body, Mapping) else f"status {status}"
    if status in _REFUSED:
        return key, Outcome("refused", raw=raw, reason=said)
    if status in (401, 402, 403, 404):
        return key, Outcome("down", reason=f"{said} ({status})")
    return key, Outcome("failed", reason=f"{said} ({status})")


def _line(order: Order) -> str:
    row = {"custom_id": order.key, "method": "POST", "url": URL, "body": payload_of(order.call)}
    return json.dumps(row) + "\n"


def _said(body: Mapping[str, Any]) -> str:
    error = body.get("error")
    message = error.get("message") or error.get("code") if isinstance(error, Mapping) else error
    return " ".join(str(message).split())[:300]
