"""`batch`: many requests in one file, answered within a day, at a lower price.

The one idea: a request in a batch survives the process that sent it. Its attempt joins the batch in
the ledger before the upload; the ledger records the creation before the server is asked for it;
and the batch carries a token of ours. So the next process that opens the ledger knows which
batches may exist, finds them by id or token, waits for them and stores their answers.
"""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import TeacherUnavailableError
from bridgekd.ledger.sql import OpenBatch
from bridgekd.teacher.batch_client import BATCH_RESUME_HINT, BatchClient
from bridgekd.teacher.batch_format import (
    BatchFile,
    BatchResult,
    BatchState,
    make_custom_id,
    parse_results,
    split_into_files,
)
from bridgekd.teacher.transport import (
    PendingRequest,
    TeacherConnection,
    Transport,
    TransportContext,
)

MAX_IN_FLIGHT = 100_000
CREATE_GRACE_S = 5.0  # for a batch that is being created when the purchase stops
LOST_AFTER = timedelta(hours=48)  # a batch ends within 24 h; one that is unknown then is lost
FINAL_STATUSES = ("completed", "failed", "expired", "cancelled")
T = TypeVar("T")


class BatchOptions(BaseModel):
    """poll_s: seconds between two requests for a batch's state. max_requests, max_bytes: the
    maximum size of a file; OpenAI accepts twice these bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(30.0, gt=0, le=86_400)
    max_requests: int = Field(50_000, ge=1, le=10**9)
    max_bytes: int = Field(100_000_000, ge=1, le=10**12)


class BatchConnection(TeacherConnection):
    """Collects requests until `flush`, sends them as a batch, and waits for it."""

    def __init__(self, context: TransportContext) -> None:
        teacher, options = context.resolved.teacher, context.resolved.options
        assert isinstance(options, BatchOptions)
        self.max_in_flight = MAX_IN_FLIGHT
        self._options, self._price = options, context.resolved.price
        self._commits, self._ledger = context.commits, context.commits.ledger
        self._note = context.note
        self._client = BatchClient(teacher, context.api_key, options.poll_s)
        self._owner = {"provider": teacher.provider, "host": self._client.host}
        self._pending: dict[str, PendingRequest] = {}
        self._batch_of: dict[str, asyncio.Future[asyncio.Task[dict[str, RequestOutcome]]]] = {}
        self._unsent: set[str] = set()  # in no batch that the server could know
        self._earlier: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._creating: set[asyncio.Task[BatchState | RequestOutcome]] = set()

    async def open(self) -> None:
        for batch in self._ledger.open_batches():
            if {"provider": batch.provider, "host": batch.host} == self._owner:
                task = self._start(self._finish_earlier(batch), self._tasks)
                task.add_done_callback(self._note_failure)
                self._earlier |= dict.fromkeys(batch.attempts, task)

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, pending: PendingRequest) -> RequestOutcome:
        self._pending[pending.key] = pending
        self._unsent.add(pending.key)
        self._batch_of[pending.key] = asyncio.get_running_loop().create_future()
        batch = await self._batch_of[pending.key]
        outcomes = await asyncio.shield(batch)
        return outcomes[pending.key]

    def flush(self) -> None:
        requests, self._pending = self._pending.values(), {}
        options = self._options
        for file in split_into_files(
            requests, max_lines=options.max_requests, max_bytes=options.max_bytes
        ):
            batch = self._start(self._send_batch(file), self._tasks)
            for key in file.keys:
                self._batch_of.pop(key).set_result(batch)

    def find_earlier(self, key: str) -> "asyncio.Task[None] | None":
        return self._earlier.get(key)

    async def stop(self) -> set[str]:
        """End all work here, after a short wait for the id of a batch that is being created.

        A request that waits is cancelled; one that has an outcome keeps it.
        """
        creating, working = set(self._creating), set(self._tasks)
        self._pending.clear()
        for waiting in (*working, *self._batch_of.values()):
            waiting.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if creating:
            await asyncio.wait(creating, timeout=CREATE_GRACE_S)
        for task in creating:
            task.cancel()
        await asyncio.gather(*creating, return_exceptions=True)
        return set(self._unsent)

    def _start(self, work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def _note_failure(self, task: "asyncio.Task[None]") -> None:
        """Show why an earlier batch failed. This stops only a purchase that needs its answers."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note(str(error))

    async def _send_batch(self, file: BatchFile) -> dict[str, RequestOutcome]:
        """Upload a file, create its batch, and return the outcome of each request."""
        keys, token, price = file.keys, uuid.uuid4().hex, self._price
        await self._commits.commit(
            lambda: self._ledger.join_batch(token, keys, price=price, **self._owner)
        )
        file_id = await self._client.retry(partial(self._client.upload, file.content))
        del file  # it may be large, and the batch may take a day
        if isinstance(file_id, RequestOutcome):  # an upload is never billed
            return dict.fromkeys(keys, replace(file_id, kind="down"))
        creating = self._start(self._create_batch(token, file_id, keys), self._creating)
        batch = await asyncio.shield(creating)
        if isinstance(batch, BatchState):
            return await self._follow(batch, keys)
        outcome = batch if batch.kind == "unknown" else replace(batch, kind="down")
        return dict.fromkeys(keys, outcome)

    async def _create_batch(
        self, token: str, file_id: str, keys: Iterable[str]
    ) -> BatchState | RequestOutcome:
        """Create the batch. The ledger knows of it before and after."""
        self._unsent -= set(keys)
        await self._set_batch_id(token, "")
        batch = await self._client.create_once(token, file_id)
        if isinstance(batch, BatchState):
            await self._set_batch_id(token, batch.id)
        return batch

    async def _set_batch_id(self, token: str, batch_id: str) -> None:
        await self._commits.commit(partial(self._ledger.set_batch_id, token, batch_id))

    async def _finish_earlier(self, batch: OpenBatch) -> None:
        """Wait for a batch of an earlier process and store all its answers."""
        outcomes = await self._follow_earlier(batch)
        saves = (partial(self._save, batch.attempts[key], o) for key, o in outcomes.items())
        await asyncio.gather(*map(self._commits.commit, saves))
        await self._commits.commit(partial(self._ledger.settle_batch, batch.token))

    async def _follow_earlier(self, batch: OpenBatch) -> dict[str, RequestOutcome]:
        batch_id, keys, client = batch.remote_id, tuple(batch.attempts), self._client
        lookup = client.get_batch(batch_id) if batch_id else client.wait_for_token(batch.token)
        if (state := await lookup) is not None:
            if not batch_id:
                await self._set_batch_id(batch.token, state.id)
            return await self._follow(state, keys)
        lost_at = datetime.fromisoformat(batch.created_at) + LOST_AFTER
        if batch_id and datetime.now(UTC) < lost_at:
            raise TeacherUnavailableError(
                f"{client.host} does not know batch {batch_id} of {len(keys):,} requests. Use the "
                f"key and the base_url that it was sent with. From {lost_at:%Y-%m-%d %H:%M} UTC on "
                f"it counts as lost: its requests stay charged to the hard limit and may be sent "
                f"again."
            )
        return dict.fromkeys(keys, RequestOutcome("unknown", reason="its batch is lost"))

    async def _follow(self, batch: BatchState, keys: tuple[str, ...]) -> dict[str, RequestOutcome]:
        """Poll a batch until its end, then return the outcome of each request."""
        name, status, host = batch.id, "", self._client.host
        if batch.status not in FINAL_STATUSES:
            self._note(
                f"Batch {name} of {len(keys):,} requests is at {host}. It may take a day. You may "
                f"stop here (Ctrl-C); the same command resumes."
            )
        while True:
            if batch.status != status:
                status = batch.status
                self._note(f"Batch {name}: {status}")
            if status in FINAL_STATUSES:
                return await self._read_outcomes(batch, keys)
            await asyncio.sleep(self._options.poll_s)
            state = await self._client.get_batch(batch.id)
            if state is None:
                raise TeacherUnavailableError(
                    f"Batch {name} no longer exists on {host}. {BATCH_RESUME_HINT}"
                )
            batch = state

    async def _read_outcomes(
        self, batch: BatchState, keys: Sequence[str]
    ) -> dict[str, RequestOutcome]:
        """Return the outcome of each request of a batch that has ended."""
        if batch.status == "failed" and not batch.file_ids:
            detail = batch.error[:300] or "without a reason"
            down = RequestOutcome("down", reason=f"it rejected the batch ({detail})")
            return dict.fromkeys(keys, down)
        outcomes: dict[str, RequestOutcome] = {}
        for file_id in batch.file_ids:
            text = await self._client.download(file_id, len(keys))
            if text is None and time.time() < batch.created_at + LOST_AFTER.total_seconds():
                raise TeacherUnavailableError(
                    f"{self._client.host} does not find {file_id} of {batch.id}. "
                    f"{BATCH_RESUME_HINT}"
                )
            for result in parse_results(text or ""):
                if result.custom_id not in outcomes or result.status == 200:
                    outcomes[result.custom_id] = self._classify(result)
        # A request in no file may have been served.
        missing = RequestOutcome(
            "unknown", reason=f"the batch is {batch.status} without its answer"
        )
        return {key: outcomes.get(make_custom_id(key), missing) for key in keys}

    def _classify(self, result: BatchResult) -> RequestOutcome:
        if result.status is None:
            return RequestOutcome("failed", reason=result.error)
        if 200 <= result.status < 300:
            return RequestOutcome("answered", raw=result.body, request_id=result.request_id)
        outcome = self._client.classify_status(result.status, result.body, result.request_id)
        # A rate limit inside a batch is not one for the requests of this client.
        return replace(outcome, rate_limited=False, retry_after_s=None)

    def _save(self, attempt_id: int, outcome: RequestOutcome) -> None:
        """Store an outcome at the price its batch was sent with; `settle_batch` reads answers."""
        ledger = self._ledger
        is_refusal = outcome.kind == "refused" and not ledger.has_answer(attempt_id)
        if outcome.kind == "answered" or is_refusal:
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
            if is_refusal:  # in the same transaction, because the body alone does not show it
                ledger.settle(attempt_id, "refused", RequestCost())
        else:
            may_be_billed = outcome.kind in ("unknown", "refused")
            ledger.release(attempt_id, "unknown" if may_be_billed else "failed")


TRANSPORT = Transport(
    name="batch",
    title="Batch API",
    summary="Sends all requests that the budget admits as one file, answered within a day at a "
    "lower price.",
    options=BatchOptions,
    open=BatchConnection,
    has_batch_price=True,
    supports_rate_limits=False,
    survives_process=True,
)
