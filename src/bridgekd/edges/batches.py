"""The batch transport: many calls in one file, answered within a day, at a lower price.

The one idea: a call in a batch outlives the process that sent it. Its attempt joins the batch in
the ledger before anything is uploaded, the batch carries a token of ours as metadata, and whoever
opens the ledger next finds it by that token, waits for it and takes its answers.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from openai.types import Batch

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.replies import Bill
from bridgekd.edges.attempts import OpenBatch
from bridgekd.edges.batch_files import outcome_of_line, parts_of
from bridgekd.edges.batch_wire import BatchWire
from bridgekd.edges.commits import Commits
from bridgekd.edges.lines import Outcome, host_of
from bridgekd.edges.orders import Order
from bridgekd.errors import TeacherDown

LONGEST_QUIET_S = 1.0  # without a further call before a batch is sent
WIDTH = 100_000
OVER = ("completed", "failed", "expired", "cancelled")
GO_ON = "The batch goes on without us: run the same command again to take its answers."
Note = Callable[[str], None]


class BatchLine(BatchWire):
    """Collects calls until no more come, sends them as a batch, and waits for it."""

    outlives = True
    width = WIDTH

    def __init__(
        self, teacher: Teacher, api_key: str, commits: Commits, note: Note = lambda text: None
    ) -> None:
        super().__init__(teacher, api_key)
        self._commits = commits
        self._note = note
        self._host = host_of(teacher)
        mine = (teacher.provider, self._host)
        self._left = [b for b in commits.ledger.open_batches() if (b.provider, b.host) == mine]
        self.adopted = {key: row for batch in self._left for key, row in batch.attempts.items()}
        self._orphans = dict(self.adopted)  # of them, those that nobody has asked for
        self._answers: dict[str, asyncio.Future[Outcome]] = {}
        self._pending: list[Order] = []
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for batch in self._left:
            self._start(self._resume(batch))
        self._start(self._send_forever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_orphans()
        await super().__aexit__(kind, error, trace)

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """The bound: nobody knows an answer beforehand."""
        return bound

    def unsent(self) -> set[str]:
        """The calls that no batch has yet."""
        return {order.key for order in self._pending}

    async def ask(self, order: Order) -> Outcome:
        """The call's outcome, once its batch is over; it may take a day."""
        if self._failure is not None:
            raise self._failure
        if order.key in self._orphans:
            del self._orphans[order.key]
        else:
            self._answers.pop(order.key, None)
            self._pending.append(order)
            self._wake.set()
        answer = self._answer(order.key)
        try:
            return await answer
        finally:
            if answer.cancelled():
                self._pending = [o for o in self._pending if o.key != order.key]

    def _answer(self, key: str) -> "asyncio.Future[Outcome]":
        if key not in self._answers:
            self._answers[key] = asyncio.get_running_loop().create_future()
        return self._answers[key]

    def _give(self, key: str, outcome: Outcome) -> None:
        if not self._answer(key).done():
            self._answers[key].set_result(outcome)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside; where it fails, everybody who waits is told."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failure = self._failure or error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    async def _send_forever(self) -> None:
        quiet_s = min(LONGEST_QUIET_S, self.teacher.poll_s)
        while True:
            await self._wake.wait()
            n_seen = -1
            while n_seen != len(self._pending):
                n_seen = len(self._pending)
                await asyncio.sleep(quiet_s)
            self._wake.clear()
            orders, self._pending = self._pending, []
            for lines in parts_of(orders):
                self._start(self._send(lines))

    async def _send(self, lines: Mapping[str, str]) -> None:
        """One batch from its first byte to its last answer."""
        token, ledger, teacher = uuid.uuid4().hex, self._commits.ledger, self.teacher
        await self._commits.do(
            lambda: ledger.join_batch(
                token, lines, provider=teacher.provider, host=self._host, price=teacher.tariff
            )
        )
        content = "".join(lines.values()).encode()
        made: str | Batch | Outcome = await self.patiently(lambda: self.upload(content))
        if isinstance(made, str):
            file_id = made
            made = await self.patiently(lambda: self.create(token, file_id))
        if isinstance(made, Batch):
            await self._follow(token, made, lines)
            return
        assert isinstance(made, Outcome)
        for key in lines:
            self._give(key, replace(made, kind="down") if made.kind == "refused" else made)

    async def _resume(self, left: OpenBatch) -> None:
        """A batch of an earlier process, if it was ever made."""
        name = left.remote_id
        found: Batch | Outcome | None
        if name is not None:
            found = await self.patiently(lambda: self.retrieve(name))
        else:
            found = await self.look_for(left.token)
        if isinstance(found, Batch):
            await self._follow(left.token, found, left.attempts)
            return
        if isinstance(found, Outcome):
            raise TeacherDown(f"{self._host} says nothing of {name}: {found.reason}. {GO_ON}")
        for key in left.attempts:
            self._give(key, Outcome("failed", reason="the batch was never made"))

    async def _follow(self, token: str, batch: Batch, keys: Iterable[str]) -> None:
        """Asks about a batch until it is over, then gives its answers out."""
        name, n = batch.id, len(list(keys))
        await self._commits.do(lambda: self._commits.ledger.name_batch(token, name))
        self._note(
            f"Batch {name} of {n:,} calls is at {self._host}; it may take a day. You may stop "
            f"here (Ctrl-C); the same command goes on."
        )
        seen = ""
        while batch.status not in OVER:
            if batch.status != seen:
                seen = batch.status
                self._note(f"Batch {name}: {seen}")
            await asyncio.sleep(self.teacher.poll_s)
            asked = await self.patiently(lambda: self.retrieve(name))
            if isinstance(asked, Outcome):
                raise TeacherDown(f"{self._host} says nothing of {name}: {asked.reason}. {GO_ON}")
            batch = asked
        for key, outcome in (await self._outcomes(batch, keys)).items():
            self._give(key, outcome)

    async def _outcomes(self, batch: Batch, keys: Iterable[str]) -> dict[str, Outcome]:
        """What became of each call of a batch that is over."""
        if batch.status == "failed":
            said = "; ".join(str(e.message) for e in (batch.errors and batch.errors.data) or [])
            down = Outcome("down", reason=f"it did not take the batch ({self.clean(said)[:300]})")
            return dict.fromkeys(keys, down)
        # Not in the files: it may have been served.
        found = dict.fromkeys(keys, Outcome("unknown", reason=f"{batch.status} without its answer"))
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            text = await self.patiently(partial(self.download, file_id))
            if isinstance(text, Outcome):
                raise TeacherDown(f"{self._host} gave no {file_id}: {text.reason}. {GO_ON}")
            for line in text.splitlines():
                key, outcome = outcome_of_line(line)
                if key in found:
                    found[key] = outcome
        return found

    async def _keep_orphans(self) -> None:
        """Answers that came for calls that this buying does not want are kept all the same."""
        for key, attempt_id in self._orphans.items():
            answer = self._answers.get(key)
            if answer is None or not answer.done() or answer.cancelled() or answer.exception():
                continue
            await self._commits.do(partial(self._write, attempt_id, answer.result()))
        await self._commits.do(self._commits.ledger.recover)

    def _write(self, attempt_id: int, outcome: Outcome) -> None:
        ledger = self._commits.ledger
        if outcome.kind == "answered":
            ledger.record(attempt_id, outcome.raw, price=None, request_id=outcome.request_id)
        else:
            ledger.release(attempt_id, "unknown" if outcome.kind == "unknown" else "failed")
