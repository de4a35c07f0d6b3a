"""`replay`: recorded answers as a teacher. Nothing is sent; the rest is as with `live`.

A recording is matched by its question, or by its id if it names no question. Several recordings of
one question are its samples, in the file's order. The cost is that of the recorded tokens at the
recipe's price, or without a price the recorded cost. A question without a recording is a refused
row here; `query_teacher` counts it as unrecorded.
"""

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bridgekd.api_client.chat_completion import RequestCost, compute_request_cost, parse_completion
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.recorded_answers import (
    RecordedAnswer,
    fill_token_counts,
    parse_recorded_answer,
)
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.request_cost import to_microusd_rounded_up
from bridgekd.errors import InputError
from bridgekd.io.row_files import read_jsonl
from bridgekd.paths import resolve_path
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.teacher.transport import (
    PendingRequest,
    TeacherConnection,
    Transport,
    TransportContext,
)
from bridgekd.variants import VariantRef

NO_RECORDING_BODY = '{"error": {"message": "nothing is recorded", "code": "no_recording"}}'


class ReplayOptions(BaseModel):
    """recordings: a JSONL file of recorded answers, relative to the recipe's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recordings: str


class RecordingFile:
    """The rows of a file of recordings, read once into a temporary database.

    The database is on disk and ends with the process, so memory does not grow with the file.
    digest: a hash of the file's bytes.
    """

    def __init__(self, path: Path) -> None:
        sha256 = hashlib.sha256()
        # "" is a temporary file. In a notebook, a purchase reads it from another thread.
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._db.execute("CREATE TABLE recordings (key BLOB, row TEXT)")
        rows = read_jsonl(path, sha256)
        self._db.executemany(
            "INSERT INTO recordings VALUES (?, ?)", (_check_row(path, *row) for row in rows)
        )
        self._db.execute("CREATE INDEX by_key ON recordings (key)")
        self.digest = sha256.hexdigest()[:16]

    def find(self, name: str, value: str, sample_index: int) -> RecordedAnswer | None:
        """Return a sample of the recordings with this question or id; None if there is none."""
        row = self._db.execute(
            "SELECT row FROM recordings WHERE key = ? ORDER BY rowid LIMIT 1 OFFSET ?",
            (_get_key(name, value), sample_index),
        ).fetchone()
        return None if row is None else parse_recorded_answer(json.loads(row[0]))


def read_recording_file(path: Path) -> RecordingFile:
    """Return the recordings of a JSONL file, which is read again only if it has changed.

    A row has `question` or `id`, and the fields of `parse_recorded_answer`. Raises InputError with
    the line otherwise.
    """
    try:
        stat = path.stat()
        return _read_recording_file(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError as exc:
        raise InputError(
            f"teacher.transport.recordings: cannot read {path}: {exc.strerror}. Name a JSONL file."
        ) from exc
    except sqlite3.Error as exc:
        raise InputError(
            f"teacher.transport.recordings: cannot copy {path} into a temporary file ({exc}). Free "
            f"disk space, or name another folder in the environment variable SQLITE_TMPDIR."
        ) from exc


@lru_cache(maxsize=1)
def _read_recording_file(path: Path, version: tuple[int, int, int]) -> RecordingFile:
    return RecordingFile(path)


def _check_row(path: Path, number: int, row: Mapping[str, object]) -> tuple[bytes, str]:
    """Return the key of a recording and its row as JSON."""
    name = "question" if row.get("question") is not None else "id"
    if row.get(name) is None:
        raise InputError(f"{path} line {number}: neither 'question' nor 'id'; add one of them")
    try:
        parse_recorded_answer(row)
    except ValueError as exc:
        raise InputError(f"{path} line {number}: {exc}") from exc
    # The data reader strips questions too.
    value = str(row[name]).strip() if name == "question" else str(row[name])
    return _get_key(name, value), json.dumps(row)


def _get_key(name: str, value: str) -> bytes:
    text = f"{name}:{value}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:16]


class Recordings:
    """The recorded answers of a file, and what they cost."""

    def __init__(self, path: Path, price: Price | None) -> None:
        self.source = str(path)
        self._price = price
        self._file = read_recording_file(path)

    def find(self, request: TeacherRequest) -> str | None:
        """Return the recorded body for a request, with token counts; None if there is none."""
        sample = request.sample_index
        recording = self._file.find("question", request.question, sample)
        recording = recording or self._file.find("id", request.id, sample)
        if recording is None:
            return None
        return json.dumps(fill_token_counts(recording, request.messages))

    def get_cost(self, request: TeacherRequest) -> RequestCost:
        """Return the exact cost of replaying a request."""
        body = self.find(request)
        if body is None:
            return RequestCost()
        reply = parse_completion(body)
        reported = reply.usage.reported_usd if reply.usage else None
        max_cost = RequestCost(cost_microusd=to_microusd_rounded_up(reported or 0.0))
        return compute_request_cost(reply, self._price, max_cost=max_cost)

    def find_missing(self, requests: Iterable[TeacherRequest]) -> set[str]:
        """Return the ids of the requests that have no recording."""
        return {request.id for request in requests if self.find(request) is None}


class ReplayConnection(TeacherConnection):
    """Answers requests from the recordings."""

    def __init__(self, context: TransportContext) -> None:
        assert isinstance(context.answers, Recordings)
        self._recordings = context.answers
        self.max_in_flight = 1000

    async def send(self, pending: PendingRequest) -> RequestOutcome:
        body = self._recordings.find(pending.request)
        if body is None:
            return RequestOutcome(
                "refused", raw=NO_RECORDING_BODY, reason="nothing is recorded for it"
            )
        return RequestOutcome("answered", raw=body)


def _load_answers(teacher: TeacherOptions, options: BaseModel) -> Recordings:
    assert isinstance(options, ReplayOptions)
    return Recordings(Path(options.recordings), teacher.list_price)


def _prepare(teacher: TeacherOptions, options: BaseModel, folder: Path) -> TeacherOptions:
    """Name the teacher by the digest of its recordings.

    Another file, or a changed one, is another teacher: the ledger never mixes their answers.
    """
    assert isinstance(options, ReplayOptions)
    path = resolve_path(folder, options.recordings)
    digest = read_recording_file(path).digest
    ref = VariantRef.model_validate({"name": TRANSPORT.name, "recordings": str(path)})
    return teacher.model_copy(update={"provider": f"replay:{digest}", "transport": ref})


TRANSPORT = Transport(
    name="replay",
    title="Recorded answers",
    summary="Answers from a file of recordings; nothing is sent and nothing is paid.",
    options=ReplayOptions,
    open=ReplayConnection,
    is_paid=False,
    needs_api_key=False,
    local_source="the recordings",
    supports_rate_limits=False,
    load_answers=_load_answers,
    prepare=_prepare,
)
