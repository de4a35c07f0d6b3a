"""Recorded answers as a teacher: nothing is sent, everything else is as with a live one.

A recording is found by its question, or by its id where it names no question; several of one
question are its samples, in the file's order. What it is billed: its recorded tokens at the
recipe's price, or without a price its recorded cost. A question without a recording is a refused
row here, which `query_teacher` counts and calls unrecorded.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.costs import microusd_up
from bridgekd.core.recordings import Recording, counted, read_recording
from bridgekd.core.replies import Bill, bill_of, read_reply
from bridgekd.edges.rows import read_jsonl
from bridgekd.errors import BadInput
from bridgekd.ledger.attempts import OpenAttempt
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.orders import Order

NONE_RECORDED = '{"error": {"message": "nothing is recorded", "code": "no_recording"}}'
_Found = tuple[str, str]  # ("question" or "id", its value)


def placed(teacher: Teacher, folder: Path) -> Teacher:
    """The teacher with its recordings found from `folder`, and named by what they hold.

    So another file, or a changed one, is another teacher: its answers are never mixed up with
    others in the ledger. Any other teacher comes back as it is.
    """
    if teacher.recordings is None:
        return teacher
    path = folder / Path(teacher.recordings).expanduser()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as exc:
        raise BadInput(
            f"teacher.recordings: cannot read {path}: {exc.strerror}; give a JSONL file"
        ) from exc
    return teacher.model_copy(update={"provider": f"replay:{digest}", "recordings": str(path)})


class ReplayLine:
    """The recordings of a teacher, as a line."""

    outlives = False
    resting = False
    width = 1000

    def __init__(self, teacher: Teacher) -> None:
        self.adopted: dict[str, OpenAttempt] = {}
        self._teacher = teacher
        self._recordings = read_recordings(Path(str(teacher.recordings)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """Exactly what the recording is billed."""
        recording = self._found(request)
        if recording is None:
            return Bill()
        reply = read_reply(json.dumps(counted(recording, request.messages)))
        reported = reply.usage.reported_usd if reply.usage else None
        return bill_of(reply, self._teacher.tariff, most=Bill(0, 0, microusd_up(reported or 0.0)))

    async def stop(self) -> set[str]:
        """None: there is no way that a call could be lost on."""
        return set()

    async def ask(self, order: Order) -> Outcome:
        """The recorded answer."""
        recording = self._found(order.request)
        if recording is None:
            return Outcome("refused", raw=NONE_RECORDED, reason="nothing is recorded for it")
        return Outcome("answered", raw=json.dumps(counted(recording, order.request.messages)))

    def lacks(self, requests: Iterable[TeacherRequest]) -> set[str]:
        """The ids of the requests that nothing is recorded for."""
        return {request.id for request in requests if self._found(request) is None}

    def _found(self, request: TeacherRequest) -> Recording | None:
        for name in (("question", request.question), ("id", request.id)):
            samples = self._recordings.get(name, [])
            if request.sample_index < len(samples):
                return samples[request.sample_index]
        return None


def read_recordings(path: Path) -> dict[_Found, list[Recording]]:
    """The recordings of a JSONL file, by question or id.

    A row has `question` or `id`, and what `read_recording` reads. BadInput with the line otherwise.
    """
    found: dict[_Found, list[Recording]] = {}
    for number, row in read_jsonl(path):
        name = "question" if row.get("question") is not None else "id"
        if row.get(name) is None:
            raise BadInput(f"{path} line {number}: neither 'question' nor 'id'; add one of them")
        try:
            recording = read_recording(row)
        except ValueError as exc:
            raise BadInput(f"{path} line {number}: {exc}") from exc
        known = str(row[name]).strip() if name == "question" else str(row[name])  # as data are read
        found.setdefault((name, known), []).append(recording)
    return found
