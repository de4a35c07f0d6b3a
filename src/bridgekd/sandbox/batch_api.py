"""Files and batches in OpenAI's shapes: JSONL in, an output file and an error file out.

The one idea: a batch is worked off by a thread of its own, in an order of its own, along a time
that its faults set, whether or not anybody asks for it. It writes into the same books as live
calls, at half the price, and its answers are those the same requests get live.
"""

import json
import random
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bridgekd.sandbox.batch_schema import (
    ENDPOINT,
    make_batch,
    make_result_line,
    paginate,
    parse_form,
    parse_requests,
    to_jsonl,
)
from bridgekd.sandbox.billing import BATCH_PRICE, BillingCounters
from bridgekd.sandbox.fake_teacher import FakeTeacher, HttpAnswer, draw_bool, hash_body, make_error

_TERMINAL = ("completed", "failed", "expired", "cancelled")
# A batch is validated in the first tenth of its time and finalized in the last.
_VALIDATED_AT, _FINISHED_AT = 0.1, 0.9


@dataclass(frozen=True, slots=True)
class BatchFaults:
    """Shares of a batch's requests, each in [0, 1], drawn anew at each attempt.

    `batch_s` is how long a batch takes. `expire`: never worked off and not billed, which ends the
    batch as expired; `error`: 500 or 503 in the error file, not billed; `missing`: billed and
    counted as completed, and in neither file. The first `lose_create` batches and `lose_upload`
    files are made, but the connection is closed instead of an answer.
    """

    batch_s: float = 0.0
    expire: float = 0.0
    error: float = 0.0
    missing: float = 0.0
    lose_create: int = 0
    lose_upload: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: int = field(default_factory=lambda: int(time.time()))

    def to_json(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("id", "filename", "purpose", "created_at")}
        return shown | {"object": "file", "bytes": len(self.content), "status": "processed"}


@dataclass(slots=True)
class _Batch:
    """`shown` is what a client sees; `stop` is set by a cancel."""

    state: dict[str, Any]
    order: random.Random
    began: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)

    def set_status(self, status: str) -> None:
        self.state["status"] = status
        self.state[f"{status}_at"] = int(time.time())


class BatchApi:
    """The files and batches of one server."""

    def __init__(self, voice: FakeTeacher, books: BillingCounters, faults: BatchFaults) -> None:
        self._voice, self._books, self._faults = voice, books, faults
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._n_uploads, self._n_creates = count(1), count(1)

    def close(self) -> None:
        """Ends all work."""
        for batch in list(self._batches.values()):
            batch.stop.set()
        for worker in self._workers:
            worker.join()

    def handle(
        self, method: str, url: str, content_type: str, raw: bytes
    ) -> HttpAnswer | bytes | None:
        """The answer to a request, a file's bytes; None: close the connection without a word."""
        split = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        match method, split.path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                return self._upload(content_type, raw)
            case "POST", ["batches"]:
                return self._create(raw)
            case "GET", ["files"]:
                with self._lock:
                    return paginate([file.to_json() for file in self._files.values()], query)
            case "GET", ["batches"]:
                with self._lock:
                    return paginate([dict(batch.state) for batch in self._batches.values()], query)
            case _, ["files", file_id, *what] if file_id in self._files:
                return self._handle_file(method, self._files[file_id], what)
            case _, ["batches", batch_id, *what] if batch_id in self._batches:
                return self._handle_batch(method, self._batches[batch_id], what)
        return make_error(404, f"There is no {method} {split.path} here.", "not_found")

    def _handle_file(self, method: str, file: _File, what: list[str]) -> HttpAnswer | bytes:
        match method, what:
            case "GET", []:
                return 200, file.to_json(), {}
            case "GET", ["content"]:
                return file.content
            case "DELETE", []:
                with self._lock:
                    self._files.pop(file.id, None)
                return 200, {"id": file.id, "object": "file", "deleted": True}, {}
        return make_error(404, "A file has a content and can be deleted.", "not_found")

    def _handle_batch(self, method: str, batch: _Batch, what: list[str]) -> HttpAnswer:
        with self._lock:
            match method, what:
                case "GET", []:
                    return 200, dict(batch.state), {}
                case "POST", ["cancel"]:
                    if (status := batch.state["status"]) in _TERMINAL:
                        said = f"Cannot cancel a batch with status {status!r}."
                        return make_error(409, said, "conflict")
                    batch.set_status("cancelling")
                    batch.stop.set()
                    return 200, dict(batch.state), {}
        return make_error(404, "A batch can be looked at and cancelled.", "not_found")

    def _upload(self, content_type: str, raw: bytes) -> HttpAnswer | None:
        form = parse_form(content_type, raw)
        if "file" not in form or "purpose" not in form:
            return make_error(
                400, "An upload is a form with a file and a purpose.", "invalid_request"
            )
        filename, content = form["file"]
        file = self._add_file(filename, form["purpose"][1].decode(), content)
        lost = next(self._n_uploads) <= self._faults.lose_upload
        return None if lost else (200, file.to_json(), {})

    def _create(self, raw: bytes) -> HttpAnswer | None:
        try:
            asked = json.loads(raw)
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return make_error(400, "The body is not a JSON object.", "invalid_request")
        file = self._files.get(str(asked.get("input_file_id")))
        if file is None or file.purpose != "batch":
            said = "input_file_id is no file with the purpose batch."
            return make_error(400, said, "invalid_request", param="input_file_id")
        for name, right in {"endpoint": ENDPOINT, "completion_window": "24h"}.items():
            if asked.get(name) != right:
                said = f"{name} must be {right!r}."
                return make_error(400, said, "invalid_request", param=name)
        n = next(self._n_creates)
        batch = _Batch(make_batch(asked), random.Random(f"{self._voice.seed}:batch:{n}"))
        answer: HttpAnswer = 200, dict(batch.state), {}
        worker = threading.Thread(
            target=self._process, args=(batch, file.content), name=f"batch-{n}"
        )
        with self._lock:
            self._batches[batch.state["id"]] = batch
            self._workers.append(worker)
        worker.start()
        return None if n <= self._faults.lose_create else answer

    def _add_file(self, filename: str, purpose: str, content: bytes) -> _File:
        file = _File(f"file-{secrets.token_hex(12)}", filename, purpose, content)
        with self._lock:
            self._files[file.id] = file
        return file

    def _process(self, batch: _Batch, content: bytes) -> None:
        """A batch's life."""
        requests, wrong = parse_requests(content, self._voice.models)
        if self._is_cancelled(batch, _VALIDATED_AT):
            self._finish(batch, "cancelled", {})
        elif wrong:
            self._finish(batch, "failed", {"errors": {"object": "list", "data": wrong}})
        else:
            self._answer_requests(batch, requests)

    def _answer_requests(self, batch: _Batch, requests: Sequence[Mapping[str, Any]]) -> None:
        attempts = [self._books.count_request(hash_body(request["body"])) for request in requests]
        self._set_status(batch, "in_progress")
        with self._lock:
            counts = batch.state["request_counts"] = {
                "total": len(requests), "completed": 0, "failed": 0,
            }  # fmt: skip
        order = list(range(len(requests)))
        batch.order.shuffle(order)
        lines: dict[str, list[dict[str, Any]]] = {"completed": [], "failed": [], "unfinished": []}
        for n_done, n in enumerate(order, 1):
            part = n_done / len(order)
            if self._is_cancelled(batch, _VALIDATED_AT + part * (_FINISHED_AT - _VALIDATED_AT)):
                break
            state, found = self._answer_request(requests[n], attempts[n])
            lines[state] += found
            with self._lock:
                if state in counts:
                    counts.update({state: counts[state] + 1})
        if not lines["unfinished"]:
            self._set_status(batch, "finalizing")
        self._is_cancelled(batch, 1.0)
        if batch.stop.is_set():  # what a cancel leaves undone has no lines
            lines["unfinished"] = []
        files = {"output": lines["completed"], "error": lines["failed"] + lines["unfinished"]}
        ids = {
            f"{kind}_file_id": self._add_file(f"{kind}.jsonl", "batch_output", to_jsonl(found)).id
            for kind, found in files.items()
            if found
        }
        end = "expired" if lines["unfinished"] else "completed"
        self._finish(batch, end, ids)

    def _answer_request(
        self, request: Mapping[str, Any], attempt: int
    ) -> tuple[str, list[dict[str, Any]]]:
        """How a request ends, and its line; none: it is missing."""
        body, key = request["body"], hash_body(request["body"])
        dice = random.Random(f"{self._voice.seed}:{key}:{attempt}:batch")
        expired, broken, missing = (
            draw_bool(dice, share)
            for share in (self._faults.expire, self._faults.error, self._faults.missing)
        )
        if expired:
            why = "This request could not be executed before the completion window expired."
            return "unfinished", [
                make_result_line(request, said={"code": "batch_expired", "message": why})
            ]
        if broken:
            status = dice.choice((500, 503))
            answer = make_error(status, "The server had an error.", "server_error")
            return "failed", [make_result_line(request, answer)]
        if complaint := self._voice.find_request_error(body):
            return "failed", [make_result_line(request, complaint)]
        said = self._voice.answer(body)
        if said.billed is None:
            return "failed", [make_result_line(request, said.answer)]
        self._books.add_cost(key, said.billed, BATCH_PRICE)
        return "completed", [] if missing else [make_result_line(request, said.answer)]

    def _is_cancelled(self, batch: _Batch, share: float) -> bool:
        """Waits until this share of a batch's time is over, or it is cancelled before."""
        until = batch.began + share * self._faults.batch_s
        return batch.stop.wait(max(0.0, until - time.monotonic()))

    def _set_status(self, batch: _Batch, status: str) -> None:
        with self._lock:
            if not batch.stop.is_set():
                batch.set_status(status)

    def _finish(self, batch: _Batch, status: str, more: Mapping[str, Any]) -> None:
        with self._lock:
            batch.state |= more
            batch.set_status("cancelled" if batch.stop.is_set() else status)
