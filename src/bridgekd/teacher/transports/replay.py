"""`replay`: recorded answers as a teacher. Nothing is sent; the rest is as with `live`.

A recording is matched by its question, or by its id if it names no question. Several recordings of
one question are its samples, in the file's order. The output file of a batch API is such a file,
too: a `custom_id` is an id, or, with the file of the batch's requests, a question. The cost is that
of the recorded tokens at the recipe's price, or without a price the recorded cost. A question
without a recording is a refused row here; `query_teacher` counts it as unrecorded.
"""

import hashlib
import json
import sqlite3
import weakref
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

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
from bridgekd.messages import format_text, format_value
from bridgekd.paths import resolve_path
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.teacher.batch_format import BatchResult, parse_batch_result
from bridgekd.teacher.transport import (
    PendingRequest,
    TeacherConnection,
    Transport,
    TransportContext,
)
from bridgekd.variants import VariantRef

NO_RECORDING_BODY = '{"error": {"message": "nothing is recorded", "code": "no_recording"}}'


class ReplayOptions(BaseModel):
    """recordings: a JSONL file of recorded answers, relative to the recipe's folder. batch_input:
    the JSONL file of the batch's requests, if `recordings` is the output file of a batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recordings: str
    batch_input: str | None = None


class RecordingFile:
    """The rows of a file of recordings, read once into a temporary database.

    The database is on disk and ends with the process, so memory does not grow with the file.
    digest: a hash of the file's bytes, and of those of the batch's requests.
    """

    def __init__(self, path: Path, batch_input: Path | None = None) -> None:
        sha256 = hashlib.sha256()
        # "" is a temporary file. In a notebook, a purchase reads it from another thread.
        self._db = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._db.close)
        self._db.execute("CREATE TABLE recordings (key BLOB, row TEXT)")
        self._db.execute("CREATE TABLE requests (custom_id TEXT PRIMARY KEY, question TEXT)")
        self._batch_input = batch_input
        for number, row in read_jsonl(batch_input, sha256) if batch_input else ():
            self._add_request(f"{batch_input} line {number}", row)
        self._db.executemany("INSERT INTO recordings VALUES (?, ?)", self._iter_rows(path, sha256))
        self._db.execute("CREATE INDEX by_key ON recordings (key)")
        self.digest = sha256.hexdigest()[:16]

    def _add_request(self, where: str, row: Mapping[str, object]) -> None:
        """Add the question of a line of the batch's requests: its last user message."""
        body, custom_id = row.get("body"), row.get("custom_id")
        messages = body.get("messages") if isinstance(body, Mapping) else None
        texts = [
            message.get("content")
            for message in (messages if isinstance(messages, list) else [])
            if isinstance(message, Mapping) and message.get("role") == "user"
        ]
        if not isinstance(custom_id, str) or not texts or not isinstance(texts[-1], str):
            raise InputError(
                f"{where} is no request of a batch. It needs a custom_id, and a body with the text "
                "of a user's message."
            )
        try:
            self._db.execute("INSERT INTO requests VALUES (?, ?)", (custom_id, texts[-1].strip()))
        except sqlite3.IntegrityError as exc:
            raise InputError(
                f"{where}: The custom_id {format_value(custom_id)} is there twice. Remove one."
            ) from exc

    def _iter_rows(self, path: Path, sha256: "hashlib._Hash") -> Iterator[tuple[bytes, str]]:
        """Yield the key of every recording and its row as JSON."""
        n_rows, first_failure = 0, ""
        for number, row in read_jsonl(path, sha256):
            where = f"{path} line {number}"
            if "custom_id" in row:
                if not isinstance(row.get("response"), dict | None):
                    found = format_value(row["response"])
                    raise InputError(f"{where}: 'response' is {found}, not an object or null")
                result = parse_batch_result(row)
                if result.status != 200:
                    reason = format_text(result.error or result.body)
                    first_failure = first_failure or f"{where}: The request failed: {reason}"
                    continue
                row = self._name_result(where, result)
            yield _check_row(where, row)
            n_rows += 1
        if first_failure and not n_rows:
            raise InputError(f"{first_failure}. No request of this file has an answer.")

    def _name_result(self, where: str, result: BatchResult) -> Mapping[str, object]:
        """Return a result of a batch as a recording with a question or an id."""
        if self._batch_input is None:
            return {"id": result.custom_id, "response": result.body}
        found = self._db.execute(
            "SELECT question FROM requests WHERE custom_id = ?", (result.custom_id,)
        ).fetchone()
        if found is None:
            raise InputError(
                f"{where}: The custom_id {format_value(result.custom_id)} is not in "
                f"{self._batch_input}. Name the input file of this batch."
            )
        return {"question": found[0], "response": result.body}

    def find(self, name: str, value: str, sample_index: int) -> RecordedAnswer | None:
        """Return a sample of the recordings with this question or id; None if there is none."""
        row = self._db.execute(
            "SELECT row FROM recordings WHERE key = ? ORDER BY rowid LIMIT 1 OFFSET ?",
            (_get_key(name, value), sample_index),
        ).fetchone()
        return None if row is None else parse_recorded_answer(json.loads(row[0]))


def read_recording_file(path: Path, batch_input: Path | None = None) -> RecordingFile:
    """Return the recordings of a JSONL file, which is read again only if it has changed.

    A row has `question` or `id`, and the fields of `parse_recorded_answer`; or it is a line of the
    output file of a batch, whose requests may be in `batch_input`. Raises InputError with the line
    otherwise.
    """
    paths = (path, batch_input) if batch_input else (path,)
    try:
        stats = [file.stat() for file in paths]
        versions = tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
        return _read_recording_file(path, batch_input, versions)
    except OSError as exc:
        raise InputError(
            f"teacher.transport: cannot read {exc.filename or path}: {exc.strerror}. Name a JSONL "
            "file."
        ) from exc
    except sqlite3.Error as exc:
        raise InputError(
            f"teacher.transport.recordings: cannot copy {path} into a temporary file ({exc}). Free "
            f"disk space, or name another folder in the environment variable SQLITE_TMPDIR."
        ) from exc


@lru_cache(maxsize=1)
def _read_recording_file(
    path: Path, batch_input: Path | None, versions: tuple[tuple[int, int, int], ...]
) -> RecordingFile:
    return RecordingFile(path, batch_input)


def _check_row(where: str, row: Mapping[str, object]) -> tuple[bytes, str]:
    """Return the key of a recording and its row as JSON."""
    name = "question" if row.get("question") is not None else "id"
    if row.get(name) is None:
        raise InputError(f"{where}: neither 'question' nor 'id'; add one of them")
    try:
        parse_recorded_answer(row)
    except ValueError as exc:
        raise InputError(f"{where}: {exc}") from exc
    # The data reader strips questions too.
    value = str(row[name]).strip() if name == "question" else str(row[name])
    return _get_key(name, value), json.dumps(row)


def _get_key(name: str, value: str) -> bytes:
    text = f"{name}:{value}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:16]


class Recordings:
    """The recorded answers of a file, and what they cost."""

    def __init__(self, path: Path, batch_input: Path | None, price: Price | None) -> None:
        self.source = str(path)
        self._price = price
        self._file = read_recording_file(path, batch_input)

    def find(self, request: TeacherRequest) -> str | None:
        """Return the recorded body for a request, with token counts; None if there is none."""
        sample = request.sample_index
        recording = self._file.find("question", request.question, sample)
        for message in request.messages[-1:]:  # the requests of a batch are whole prompts
            recording = recording or self._file.find("question", message.content.strip(), sample)
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

    def has_answer(self, request: TeacherRequest) -> bool:
        """Return whether the request has a recording."""
        return self.find(request) is not None


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
    batch_input = None if options.batch_input is None else Path(options.batch_input)
    return Recordings(Path(options.recordings), batch_input, teacher.list_price)


def _prepare(teacher: TeacherOptions, options: BaseModel, folder: Path) -> TeacherOptions:
    """Name the teacher by the digest of its recordings.

    Another file, or a changed one, is another teacher: the ledger never mixes their answers.
    """
    assert isinstance(options, ReplayOptions)
    path, batch_input = resolve_path(folder, options.recordings), None
    source: dict[str, JsonValue] = {"name": TRANSPORT.name, "recordings": str(path)}
    if options.batch_input is not None:
        batch_input = resolve_path(folder, options.batch_input)
        source["batch_input"] = str(batch_input)
    digest = read_recording_file(path, batch_input).digest
    ref = VariantRef.model_validate(source)
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
