"""OpenAI's files and batches: a JSONL file in, an output file and an error file out.

Each batch has a thread that processes its requests in a random order, at times that its faults set.
A batch uses the same billing counters as live requests, at half the price, and gives the answers
that the same requests get live.
"""

import json
import random
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from openai.types import Batch, BatchRequestCounts, FileObject
from openai.types.batch import Errors

from bridgekd.sandbox.teacher_server import HttpAnswer, JsonObject, hash_body, make_error
from faulty_teacher.answers import FakeTeacher, draw_bool
from faulty_teacher.batch_schema import (
    ENDPOINT,
    BatchRequest,
    make_batch,
    make_result_line,
    paginate,
    parse_form,
    parse_requests,
)
from faulty_teacher.billing import BATCH_PRICE, BillingCounters

_FINAL = ("completed", "failed", "expired", "cancelled")
# A batch is validated in the first tenth of its time and finalized in the last tenth.
_VALIDATED_AT, _FINISHED_AT = 0.1, 0.9

BatchStatus = Literal[
    "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
ResultKind = Literal["completed", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class BatchFaults:
    """Fractions of a batch's requests in [0, 1], drawn again for each attempt.

    A batch takes `batch_s` seconds. `expire`: not processed and not billed; the batch ends as
    expired. `error`: 500 or 503 in the error file, not billed. `missing`: billed and counted as
    completed, but in neither file. The first `lose_create` batches and `lose_upload` files are
    created, but the connection is closed without an answer.
    """

    batch_s: float = 0.0
    expire: float = 0.0
    error: float = 0.0
    missing: float = 0.0
    lose_create: int = 0
    lose_upload: int = 0


@dataclass(slots=True)
class _BatchJob:
    """`state` is what a client sees. A cancel sets `stop`."""

    state: Batch
    rng: random.Random
    started: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)

    def set_status(self, status: BatchStatus) -> None:
        self.state.status = status
        setattr(self.state, f"{status}_at", int(time.time()))


class BatchApi:
    """The files and batches of one server."""

    def __init__(
        self, teacher: FakeTeacher, counters: BillingCounters, faults: BatchFaults
    ) -> None:
        self._teacher, self._counters, self._faults = teacher, counters, faults
        self._files: dict[str, tuple[FileObject, bytes]] = {}
        self._jobs: dict[str, _BatchJob] = {}
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._n_uploads, self._n_creates = count(1), count(1)

    def close(self) -> None:
        """Stop all batches."""
        for job in list(self._jobs.values()):
            job.stop.set()
        for worker in self._workers:
            worker.join()

    def handle(
        self, method: str, url: str, content_type: str, raw: bytes
    ) -> HttpAnswer | bytes | None:
        """Return the answer to a request, or the bytes of a file; None closes the connection."""
        split = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        match method, split.path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                return self._upload(content_type, raw)
            case "POST", ["batches"]:
                return self._create(raw)
            case _, route:
                with self._lock:
                    answer = self._handle_known(method, route, query)
        if answer is None:
            return make_error(404, f"There is no {method} {split.path} here.", "not_found")
        return answer

    def _handle_known(
        self, method: str, route: list[str], query: Mapping[str, str]
    ) -> HttpAnswer | bytes | None:
        """Return the answer to a request about existing files and batches; None is a 404."""
        match method, route:
            case "GET", ["files"]:
                return paginate([file for file, _ in self._files.values()], query)
            case "GET", ["batches"]:
                return paginate([job.state for job in self._jobs.values()], query)
            case "GET", ["files", id] if id in self._files:
                return 200, self._files[id][0].model_dump(), {}
            case "GET", ["files", id, "content"] if id in self._files:
                return self._files[id][1]
            case "DELETE", ["files", id] if id in self._files:
                del self._files[id]
                return 200, {"id": id, "object": "file", "deleted": True}, {}
            case "GET", ["batches", id] if id in self._jobs:
                return 200, self._jobs[id].state.model_dump(), {}
            case "POST", ["batches", id, "cancel"] if id in self._jobs:
                return self._cancel(self._jobs[id])
        return None

    def _cancel(self, job: _BatchJob) -> HttpAnswer:
        if job.state.status in _FINAL:
            message = f"Cannot cancel a batch with status {job.state.status!r}."
            return make_error(409, message, "conflict")
        job.set_status("cancelling")
        job.stop.set()
        return 200, job.state.model_dump(), {}

    def _upload(self, content_type: str, raw: bytes) -> HttpAnswer | None:
        form = parse_form(content_type, raw)
        if "file" not in form or "purpose" not in form:
            message = "An upload is a form with a file and a purpose."
            return make_error(400, message, "invalid_request")
        if form["purpose"][1] != b"batch":
            message = "purpose must be 'batch'."
            return make_error(400, message, "invalid_request", param="purpose")
        file = self._add_file(*form["file"], "batch")
        is_lost = next(self._n_uploads) <= self._faults.lose_upload
        return None if is_lost else (200, file.model_dump(), {})

    def _create(self, raw: bytes) -> HttpAnswer | None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return make_error(400, "The body is not a JSON object.", "invalid_request")
        file, content = self._files.get(str(body.get("input_file_id")), (None, b""))
        if file is None or file.purpose != "batch":
            message = "input_file_id is no file with the purpose batch."
            return make_error(400, message, "invalid_request", param="input_file_id")
        for name, expected in {"endpoint": ENDPOINT, "completion_window": "24h"}.items():
            if body.get(name) != expected:
                message = f"{name} must be {expected!r}."
                return make_error(400, message, "invalid_request", param=name)
        n = next(self._n_creates)
        rng = random.Random(f"{self._teacher.seed}:batch:{n}")
        job = _BatchJob(make_batch(file.id, body.get("metadata")), rng)
        answer: HttpAnswer = 200, job.state.model_dump(), {}
        worker = threading.Thread(target=self._process, args=(job, content), name=f"batch-{n}")
        with self._lock:
            self._jobs[job.state.id] = job
            self._workers.append(worker)
        worker.start()
        return None if n <= self._faults.lose_create else answer

    def _add_file(
        self, filename: str, content: bytes, purpose: Literal["batch", "batch_output"]
    ) -> FileObject:
        file = FileObject(
            id=f"file-{secrets.token_hex(12)}",
            bytes=len(content),
            created_at=int(time.time()),
            filename=filename,
            object="file",
            purpose=purpose,
            status="processed",
        )
        with self._lock:
            self._files[file.id] = file, content
        return file

    def _process(self, job: _BatchJob, content: bytes) -> None:
        requests, errors = parse_requests(content, self._teacher.models)
        if self._wait(job, _VALIDATED_AT):
            self._finish(job, "cancelled")
        elif errors:
            job.state.errors = Errors(object="list", data=errors)
            self._finish(job, "failed")
        else:
            self._answer_requests(job, requests)

    def _answer_requests(self, job: _BatchJob, requests: Sequence[BatchRequest]) -> None:
        attempts = [self._counters.count_request(hash_body(r.body)) for r in requests]
        counts = BatchRequestCounts(total=len(requests), completed=0, failed=0)
        self._set_status(job, "in_progress")
        with self._lock:
            job.state.request_counts = counts
        order = list(range(len(requests)))
        job.rng.shuffle(order)
        lines: dict[ResultKind, list[JsonObject]] = {
            "completed": [],
            "failed": [],
            "unfinished": [],
        }
        for n_done, n in enumerate(order, 1):
            fraction = n_done / len(order)
            if self._wait(job, _VALIDATED_AT + fraction * (_FINISHED_AT - _VALIDATED_AT)):
                break
            kind, line = self._answer_request(requests[n], attempts[n])
            lines[kind] += [] if line is None else [line]
            with self._lock:
                counts.completed += kind == "completed"
                counts.failed += kind == "failed"
        if not lines["unfinished"]:
            self._set_status(job, "finalizing")
        if self._wait(job, 1.0):  # unfinished requests of a cancelled batch have no lines
            lines["unfinished"] = []
        output_id = self._add_results("output", lines["completed"])
        error_id = self._add_results("error", lines["failed"] + lines["unfinished"])
        with self._lock:
            job.state.output_file_id, job.state.error_file_id = output_id, error_id
        self._finish(job, "expired" if lines["unfinished"] else "completed")

    def _add_results(self, name: str, lines: Sequence[JsonObject]) -> str | None:
        content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        return self._add_file(f"{name}.jsonl", content, "batch_output").id if lines else None

    def _answer_request(
        self, request: BatchRequest, attempt: int
    ) -> tuple[ResultKind, JsonObject | None]:
        """Return how a request ends, and its line; None if the line is missing."""
        key = hash_body(request.body)
        rng = random.Random(f"{self._teacher.seed}:{key}:{attempt}:batch")
        is_expired, has_error, is_missing = (
            draw_bool(rng, fraction)
            for fraction in (self._faults.expire, self._faults.error, self._faults.missing)
        )
        if is_expired:
            message = "This request could not be executed before the completion window expired."
            error = {"code": "batch_expired", "message": message}
            return "unfinished", make_result_line(request, error=error)
        if has_error:
            status = rng.choice((500, 503))
            answer = make_error(status, "The server had an error.", "server_error")
            return "failed", make_result_line(request, answer)
        if rejection := self._teacher.find_request_error(request.body):
            return "failed", make_result_line(request, rejection)
        result = self._teacher.answer(request.body)
        if result.billed is None:
            return "failed", make_result_line(request, result.answer)
        self._counters.add_cost(key, result.billed, BATCH_PRICE)
        return "completed", None if is_missing else make_result_line(request, result.answer)

    def _wait(self, job: _BatchJob, fraction: float) -> bool:
        """Wait for this fraction of the batch's time. Return True, at once, if it is cancelled."""
        until = job.started + fraction * self._faults.batch_s
        return job.stop.wait(max(0.0, until - time.monotonic()))

    def _set_status(self, job: _BatchJob, status: BatchStatus) -> None:
        with self._lock:
            if not job.stop.is_set():
                job.set_status(status)

    def _finish(self, job: _BatchJob, status: BatchStatus) -> None:
        with self._lock:
            job.set_status("cancelled" if job.stop.is_set() else status)
