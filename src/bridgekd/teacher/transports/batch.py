"""`batch`: many requests in one file, answered within a day, at a lower price.

The one idea: a request in a batch survives the process that sent it. Its attempt joins the batch in
the ledger before anything is uploaded; before the server is asked to make the batch, that is
written down too; and the batch carries a token of ours. So whoever opens the ledger next knows
which batches may be out, finds them by name or token, waits for them and writes down their answers.
"""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Iterable
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
from bridgekd.teacher.pending_request import PendingRequest
from bridgekd.teacher.transport import TeacherConnection, Transport, TransportContext

MAX_IN_FLIGHT = 100_000
CREATE_GRACE_S = 5.0  # for a batch that is being made when we stop
LOST_AFTER = timedelta(hours=48)  # a batch ends within 24 h; one that no one knows then is gone
FINAL_STATUSES = ("completed", "failed", "expired", "cancelled")
T = TypeVar("T")


class BatchOptions(BaseModel):
    """poll_s: seconds between two looks at a batch. A file holds at most `max_requests` requests
    and `max_bytes` bytes; OpenAI takes twice these bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float = Field(30.0, gt=0)
    max_requests: int = Field(50_000, ge=1)
    max_bytes: int = Field(100_000_000, ge=1)


class BatchConnection(TeacherConnection):
    """Collects requests until `flush`, sends them as a batch, and waits for it."""

    def __init__(self, context: TransportContext) -> None:
        teacher, options = context.resolved.teacher, context.resolved.options
        assert isinstance(options, BatchOptions)
        self.max_in_flight = MAX_IN_FLIGHT
        self._provider, self._price, self._options = (
            teacher.provider,
            context.resolved.price,
            options,
        )
        self._commits, self._ledger = context.commits, context.commits.ledger
        self._note = context.note
        self._wire = BatchClient(teacher, context.api_key, options.poll_s)
        self._pending: dict[str, PendingRequest] = {}
        self._batch_of: dict[str, asyncio.Future[asyncio.Task[dict[str, RequestOutcome]]]] = {}
        self._unsent: set[str] = set()  # in no batch that the server could know
        self._earlier: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._creating: set[asyncio.Task[BatchState | RequestOutcome]] = set()

    async def open(self) -> None:
        mine = (self._provider, self._wire.host)
        for batch in self._ledger.open_batches():
            if (batch.provider, batch.host) == mine:
                task = self._start(self._finish_earlier(batch))
                task.add_done_callback(self._note_failure)
                self._earlier |= dict.fromkeys(batch.attempts, task)

    async def close(self) -> None:
        await self._wire.aclose()

    async def send(self, order: PendingRequest) -> RequestOutcome:
        self._pending[order.key] = order
        self._unsent.add(order.key)
        self._batch_of[order.key] = asyncio.get_running_loop().create_future()
        batch = await self._batch_of[order.key]
        outcomes = await asyncio.shield(batch)
        return outcomes[order.key]

    def flush(self) -> None:
        orders, self._pending = self._pending.values(), {}
        options = self._options
        limits = {"most_lines": options.max_requests, "most_bytes": options.max_bytes}
        for part in split_into_files(orders, **limits):
            batch = self._start(self._send_batch(part))
            for key in part.keys:
                self._batch_of.pop(key).set_result(batch)

    def find_earlier(self, key: str) -> "asyncio.Task[None] | None":
        return self._earlier.get(key)

    async def stop(self) -> set[str]:
        """End all work here, but for a moment in which a batch that is being made gets its name.

        Whoever waits is cancelled; who has an outcome keeps it.
        """
        creating, working = set(self._creating), set(self._tasks)
        self._pending.clear()
        for waiting in (*working, *self._batch_of.values()):
            waiting.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        if creating:
            await asyncio.wait(creating, timeout=CREATE_GRACE_S)
        for late in creating:
            late.cancel()
        await asyncio.gather(*creating, return_exceptions=True)
        return set(self._unsent)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note_failure(self, task: "asyncio.Task[None]") -> None:
        """An earlier batch that cannot be finished stops only a purchase that needs its answers."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note(str(error))

    async def _send_batch(self, part: BatchFile) -> dict[str, RequestOutcome]:
        """One batch from its first byte to its last answer."""
        keys, token, ledger = part.keys, uuid.uuid4().hex, self._ledger
        own = {"provider": self._provider, "host": self._wire.host}
        await self._commits.commit(lambda: ledger.join_batch(token, keys, price=self._price, **own))
        file_id = await self._wire.retry(partial(self._wire.upload, part.content))
        del part  # it may be large, and the batch may take a day
        if isinstance(file_id, RequestOutcome):  # a file alone is never billed
            return dict.fromkeys(keys, replace(file_id, kind="down"))
        creating = asyncio.create_task(self._create_batch(token, file_id, keys))
        self._creating.add(creating)
        creating.add_done_callback(self._creating.discard)
        batch = await asyncio.shield(creating)
        if isinstance(batch, BatchState):
            return await self._follow(batch, keys)
        outcome = batch if batch.kind == "unknown" else replace(batch, kind="down")
        return dict.fromkeys(keys, outcome)

    async def _create_batch(
        self, token: str, file_id: str, keys: Iterable[str]
    ) -> BatchState | RequestOutcome:
        """Make the batch, with all that is known about it in the ledger."""
        self._unsent -= set(keys)
        await self._commits.commit(partial(self._ledger.set_batch_id, token, ""))
        batch = await self._wire.create_once(token, file_id)
        if isinstance(batch, BatchState):
            await self._commits.commit(partial(self._ledger.set_batch_id, token, batch.id))
        return batch

    async def _finish_earlier(self, batch: OpenBatch) -> None:
        """Wait for a batch of an earlier process and write down its answers, wanted or not."""
        outcomes = await self._follow_earlier(batch)
        saves = (partial(self._save, batch.attempts[key], o) for key, o in outcomes.items())
        await asyncio.gather(*map(self._commits.commit, saves))
        await self._commits.commit(partial(self._ledger.settle_batch, batch.token))

    async def _follow_earlier(self, batch: OpenBatch) -> dict[str, RequestOutcome]:
        name, keys = batch.remote_id, tuple(batch.attempts)
        look = self._wire.look_at(name) if name else self._wire.wait_for_token(batch.token)
        if (state := await look) is not None:
            if not name:
                await self._commits.commit(
                    partial(self._ledger.set_batch_id, batch.token, state.id)
                )
            return await self._follow(state, keys)
        lost_from = datetime.fromisoformat(batch.created_at) + LOST_AFTER
        if name and datetime.now(UTC) < lost_from:
            raise TeacherUnavailableError(
                f"{self._wire.host} knows no batch {name}, of {len(keys):,} requests. Use the key "
                f"and the base_url that it was sent with. From {lost_from:%Y-%m-%d %H:%M} UTC on "
                f"it counts as lost: its requests stay charged to the hard stop and may be sent "
                f"again."
            )
        return dict.fromkeys(keys, RequestOutcome("unknown", reason="its batch is gone"))

    async def _follow(self, batch: BatchState, keys: tuple[str, ...]) -> dict[str, RequestOutcome]:
        """Look at a batch until it is over, then return what became of each request."""
        name, status = self._wire.redact(batch.id), ""
        if batch.status not in FINAL_STATUSES:
            self._note(
                f"Batch {name} of {len(keys):,} requests is at {self._wire.host}; it may take a "
                f"day. You may stop here (Ctrl-C); the same command goes on."
            )
        while True:
            if batch.status != status:
                status = batch.status
                self._note(f"Batch {name}: {self._wire.redact(status)}")
            if status in FINAL_STATUSES:
                return await self._read_outcomes(batch, keys)
            await asyncio.sleep(self._options.poll_s)
            state = await self._wire.look_at(batch.id)
            if state is None:
                raise TeacherUnavailableError(
                    f"Batch {name} no longer exists on {self._wire.host}. {BATCH_RESUME_HINT}"
                )
            batch = state

    async def _read_outcomes(
        self, batch: BatchState, keys: Iterable[str]
    ) -> dict[str, RequestOutcome]:
        """What became of each request of a batch that is over."""
        if batch.status == "failed" and not batch.file_ids:
            said = self._wire.redact(batch.error)[:300] or "it did not say why"
            down = RequestOutcome("down", reason=f"it did not take the batch ({said})")
            return dict.fromkeys(keys, down)
        outcomes: dict[str, RequestOutcome] = {}
        for file_id in batch.file_ids:
            text = await self._wire.download(file_id)
            if text is None and time.time() < batch.made_at + LOST_AFTER.total_seconds():
                host = self._wire.host
                raise TeacherUnavailableError(
                    f"{host} does not find {file_id} of {batch.id}. {BATCH_RESUME_HINT}"
                )
            for result in parse_results(text or ""):
                if result.custom_id not in outcomes or result.status == 200:
                    outcomes[result.custom_id] = self._classify(result)
        # In no file: it may have been served.
        missing = RequestOutcome(
            "unknown", reason=f"the batch is {batch.status} without its answer"
        )
        return {key: outcomes.get(make_custom_id(key), missing) for key in keys}

    def _classify(self, result: BatchResult) -> RequestOutcome:
        clean = self._wire.redact
        name = clean(result.request_id) if result.request_id else None
        if result.status is None:
            return RequestOutcome("failed", reason=clean(result.error))
        if 200 <= result.status < 300:
            return RequestOutcome("answered", raw=clean(result.body), request_id=name)
        # Throttled inside a batch says nothing about the pace of calls.
        outcome = self._wire.classify_status(result.status, clean(result.body), name)
        return replace(outcome, rate_limited=False)

    def _save(self, attempt_id: int, outcome: RequestOutcome) -> None:
        """Write an outcome at the price its batch was sent with; `settle_batch` reads answers."""
        ledger = self._ledger
        if outcome.kind == "answered":
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
        elif outcome.kind == "refused" and not ledger.has_answer(attempt_id):
            # In one commit, because the body alone does not tell it.
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
            ledger.settle(attempt_id, "refused", RequestCost())
        else:
            served = outcome.kind in ("unknown", "refused")
            ledger.release(attempt_id, "unknown" if served else "failed")


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
