"""The batch transport: many calls in one file, answered within a day, at a lower price.

The one idea: a call in a batch outlives the process that sent it. Its attempt joins the batch in
the ledger before anything is uploaded; before the server is asked to make the batch, that is
written down too; and the batch carries a token of ours. So whoever opens the ledger next knows
which batches may be out, finds them by name or token, waits for them and takes their answers.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.replies import Bill
from bridgekd.errors import TeacherDown
from bridgekd.ledger.attempts import OpenBatch
from bridgekd.teacher.batch_files import (
    MOST_BYTES,
    MOST_LINES,
    BatchState,
    Part,
    Result,
    custom_id,
    parts_of,
    results_of,
)
from bridgekd.teacher.batch_wire import GO_ON, BatchWire
from bridgekd.teacher.commits import Commits
from bridgekd.teacher.lines import Outcome, host_of
from bridgekd.teacher.orders import Order

WIDTH = 100_000
CALM_TURNS = 20  # of the event loop; a call that has ended takes 4 to let the next one in
LONGEST_OUTAGE_STEP_S = 600.0  # between looks at a batch whose server cannot be reached
MAKING_GRACE_S = 5.0  # for a batch that is being made when we stop
LOST_AFTER = timedelta(hours=48)  # a batch ends within 24 h; one that nobody knows then is gone
OVER = ("completed", "failed", "expired", "cancelled")
Note = Callable[[str], None]


class BatchLine(BatchWire):
    """Collects calls until no more come, sends them as a batch, and waits for it."""

    outlives = True
    resting = False
    width = WIDTH

    def __init__(
        self,
        teacher: Teacher,
        api_key: str,
        commits: Commits,
        note: Note = lambda text: None,
        *,
        most_lines: int = MOST_LINES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        super().__init__(teacher, api_key)
        self._commits = commits
        self._note = note
        self._parts = partial(parts_of, most_lines=most_lines, most_bytes=most_bytes)
        self._host = host_of(teacher)
        mine = (teacher.provider, self._host)
        self._left = [b for b in commits.ledger.open_batches() if (b.provider, b.host) == mine]
        self.adopted = {key: row for batch in self._left for key, row in batch.attempts.items()}
        self._orphans = {key: row.id for key, row in self.adopted.items()}  # nobody asked for them
        self._answers: dict[str, asyncio.Future[Outcome]] = {}
        self._pending: dict[str, Order] = {}
        self._here: set[str] = set()  # asked for, and in no batch that the server could know
        self._lost: dict[str, str] = {}  # by key: why nobody can say what became of its batch
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: set[asyncio.Task[BatchState | Outcome]] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for batch in self._left:
            self._start(self._guarded(batch.attempts, self._resume(batch)))
        self._start(self._send_forever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
            await self._keep_orphans()
        finally:
            await super().__aexit__(kind, error, trace)

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """The bound: nobody knows an answer beforehand."""
        return bound

    async def ask(self, order: Order) -> Outcome:
        """The call's outcome, once its batch is over; it may take a day."""
        if self._failure is not None:
            raise self._failure
        if self._orphans.pop(order.key, None) is None:
            self._lost.pop(order.key, None)
            self._pending[order.key] = order
            self._here.add(order.key)
            self._wake.set()
        if order.key in self._lost:
            raise TeacherDown(self._lost[order.key])
        try:
            return await self._answer(order.key)
        finally:
            self._answers.pop(order.key, None)

    async def stop(self) -> set[str]:
        """Ends all work here, but for a moment in which a batch that is being made gets its name.
        Whoever waits is cancelled; who has an outcome keeps it.
        """
        making = set(self._making)
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for answer in self._answers.values():
            answer.cancel()  # nothing, where it has its outcome
        if making:
            await asyncio.wait(making, timeout=MAKING_GRACE_S)
        for late in making:
            late.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        return set(self._here)

    def _answer(self, key: str) -> "asyncio.Future[Outcome]":
        if key not in self._answers:
            self._answers[key] = asyncio.get_running_loop().create_future()
        return self._answers[key]

    def _give(self, outcomes: Iterable[tuple[str, Outcome]]) -> None:
        for key, outcome in outcomes:
            self._here.discard(key)
            answer = self._answer(key)
            if not answer.done():
                answer.set_result(outcome)

    def _tell(self, keys: Iterable[str], error: BaseException) -> bool:
        """Raises an error in one of those that wait for some keys: one ends the buying."""
        for key in keys:
            answer = self._answers.get(key)
            if answer is not None and not answer.done():
                answer.set_exception(error)
                return True
        return False

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """What fails beside (a full disk, a fault in here) ends the buying."""
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not self._tell(self._answers, error):
            self._failure = self._failure or error

    async def _guarded(self, keys: Iterable[str], work: Coroutine[Any, Any, None]) -> None:
        """Does the work on one batch; where that gives up, only who asks for its calls is told."""
        try:
            await work
        except TeacherDown as exc:
            self._lost |= dict.fromkeys(keys, str(exc))
            if not self._tell(keys, exc):
                self._note(str(exc))

    async def _send_forever(self) -> None:
        while True:
            await self._wake.wait()
            await self._quiet()
            self._wake.clear()
            self._send_off()

    async def _quiet(self) -> None:
        """Waits until no more calls come: the buying rests and nothing is being written."""
        n_seen, n_calm = 0, 0
        while n_calm < CALM_TURNS:
            await self._commits.drain()
            await asyncio.sleep(0)
            calm = self.resting and n_seen == len(self._pending)
            n_seen, n_calm = len(self._pending), n_calm + 1 if calm else 0

    def _send_off(self) -> None:
        orders, self._pending = self._pending, {}
        for part in self._parts(orders.values()):
            self._start(self._guarded(part.keys, self._send(part)))

    async def _send(self, part: Part) -> None:
        """One batch from its first byte to its last answer."""
        keys, token, ledger, teacher = (
            part.keys,
            uuid.uuid4().hex,
            self._commits.ledger,
            self.teacher,
        )
        await self._commits.do(
            lambda: ledger.join_batch(
                token, keys, provider=teacher.provider, host=self._host, price=teacher.tariff
            )
        )
        file_id = await self.patiently(partial(self.upload, part.content))
        del part  # it may be large, and the batch may take a day
        if isinstance(file_id, Outcome):  # a file alone is never billed
            self._give((key, replace(file_id, kind="down")) for key in keys)
            return
        making = asyncio.create_task(self._made(token, file_id, keys))
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        batch = await asyncio.shield(making)
        if isinstance(batch, BatchState):
            await self._follow(batch, keys)
        else:
            outcome = batch if batch.kind == "unknown" else replace(batch, kind="down")
            self._give((key, outcome) for key in keys)

    async def _made(self, token: str, file_id: str, keys: Iterable[str]) -> BatchState | Outcome:
        """Makes the batch, with all that is known about it in the ledger."""
        self._here -= set(keys)
        await self._commits.do(partial(self._commits.ledger.name_batch, token, ""))
        batch = await self.make(token, file_id)
        if isinstance(batch, BatchState):
            await self._commits.do(partial(self._commits.ledger.name_batch, token, batch.id))
        return batch

    async def _resume(self, left: OpenBatch) -> None:
        """A batch of an earlier process."""
        name, keys = left.remote_id, tuple(left.attempts)
        found = await (self._look_at(name) if name else self.look_for(left.token))
        if found is not None:
            if not name:
                await self._commits.do(
                    partial(self._commits.ledger.name_batch, left.token, found.id)
                )
            await self._follow(found, keys)
            return
        lost_from = datetime.fromisoformat(left.created_at) + LOST_AFTER
        if name and datetime.now(UTC) < lost_from:
            raise TeacherDown(
                f"{self._host} knows no batch {name}, of {len(keys):,} calls; use the key and the "
                f"base_url that it was sent with. From {lost_from:%Y-%m-%d %H:%M} UTC on it counts "
                f"as lost: its calls stay charged to the hard stop and may be asked again."
            )
        self._give((key, Outcome("unknown", reason="its batch is gone")) for key in keys)

    async def _look_at(self, name: str) -> BatchState | None:
        """The batch as it stands now; patient, because it goes on without us meanwhile."""
        poll_s = self.teacher.poll_s
        batch = await self.patiently(
            partial(self.retrieve, name), base_s=poll_s, longest_s=LONGEST_OUTAGE_STEP_S
        )
        if isinstance(batch, Outcome):
            raise TeacherDown(f"{self._host} says nothing of batch {name}: {batch.reason}. {GO_ON}")
        return batch

    async def _follow(self, batch: BatchState, keys: Sequence[str]) -> None:
        """Asks about a batch until it is over, then gives its answers out."""
        name, seen = self.clean(batch.id), ""
        if batch.status not in OVER:
            self._note(
                f"Batch {name} of {len(keys):,} calls is at {self._host}; it may take a day. You "
                f"may stop here (Ctrl-C); the same command goes on."
            )
        while True:
            if batch.status != seen:
                seen = batch.status
                self._note(f"Batch {name}: {self.clean(seen)}")
            if seen in OVER:
                self._give(await self._outcomes(batch, keys))
                return
            await asyncio.sleep(self.teacher.poll_s)
            found = await self._look_at(batch.id)
            if found is None:
                raise TeacherDown(f"{self._host} knows batch {name} no more. {GO_ON}")
            batch = found

    async def _outcomes(self, batch: BatchState, keys: Iterable[str]) -> list[tuple[str, Outcome]]:
        """What became of each call of a batch that is over."""
        if batch.status == "failed" and not batch.file_ids:
            said = self.clean(batch.said)[:300] or "it did not say why"
            down = Outcome("down", reason=f"it did not take the batch ({said})")
            return [(key, down) for key in keys]
        found: dict[str, Outcome] = {}
        for file_id in batch.file_ids:
            text = await self.patiently(partial(self.download, file_id))
            if text is None:
                if time.time() < batch.made_at + LOST_AFTER.total_seconds():
                    raise TeacherDown(
                        f"{self._host} does not find {file_id} of {batch.id}. {GO_ON}"
                    )
                continue
            if isinstance(text, Outcome):
                raise TeacherDown(f"{self._host} gave no {file_id}: {text.reason}. {GO_ON}")
            for result in results_of(text):
                if result.custom_id not in found or result.status == 200:
                    found[result.custom_id] = self._outcome(result)
        # In no file: it may have been served.
        missing = Outcome("unknown", reason=f"the batch is {batch.status} without its answer")
        return [(key, found.get(custom_id(key), missing)) for key in keys]

    def _outcome(self, result: Result) -> Outcome:
        said, body = self.clean(result.said), self.clean(result.body)
        name = self.clean(result.request_id) if result.request_id else None
        if result.status is None:
            return Outcome("failed", reason=said)
        if 200 <= result.status < 300:
            return Outcome("answered", raw=body, request_id=name)
        # Throttled inside a batch says nothing about the pace of calls.
        return replace(self.by_status(result.status, body, name), throttled=False)

    async def _keep_orphans(self) -> None:
        """Answers that came for calls that this buying does not want are kept all the same."""
        kept = [
            self._commits.do(partial(self._keep, attempt_id, answer.result()))
            for key, attempt_id in self._orphans.items()
            if (answer := self._answers.get(key)) and answer.done() and not answer.cancelled()
        ]
        if kept:
            await asyncio.gather(*kept)
            await self._commits.do(self._commits.ledger.recover)

    def _keep(self, attempt_id: int, outcome: Outcome) -> None:
        """Writes an outcome at the price its batch was sent with; `recover` reads it."""
        ledger = self._commits.ledger
        if outcome.kind == "answered":
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
        elif outcome.kind == "refused" and ledger.has_final(attempt_id):
            ledger.release(attempt_id, "unknown")
        elif outcome.kind == "refused":  # in one commit, as the body alone does not tell it
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
            ledger.settle(attempt_id, "refused", Bill())
        else:
            ledger.release(attempt_id, "unknown" if outcome.kind == "unknown" else "failed")
