"""Groups the writes of many tasks into few durable transactions.

The one idea: while a thread makes one group durable, the next group collects. A write is done when
its group is on disk, never before.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from bridgekd.errors import BridgekdError
from bridgekd.ledger.ledger import Ledger

_PendingWrite = tuple[Callable[[], Any], asyncio.Future[Any]]


class GroupCommitter:
    """Writes to an open ledger from one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._pending: list[_PendingWrite] = []
        self._writer: asyncio.Task[None] | None = None

    async def commit(self, work: Callable[[], Any]) -> Any:
        """Return the result of `work` when it is durable.

        If `work` raises, nothing of it is written and its exception is raised here. `work` runs in
        another thread, also if the caller is cancelled.
        """
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((work, result))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await result

    async def drain(self) -> None:
        """Wait until every write is durable."""
        while self._writer is not None:
            await asyncio.shield(self._writer)

    async def _write(self) -> None:
        try:
            while self._pending:
                group, self._pending = self._pending, []
                await self._write_group(group)
        finally:  # in any case: no caller may wait forever
            self._writer = asyncio.create_task(self._write()) if self._pending else None

    async def _write_group(self, group: list[_PendingWrite]) -> None:
        outcomes: list[Any] = []
        try:
            works = [work for work, _ in group]
            outcomes = await asyncio.to_thread(self.ledger.run_in_transaction, works)
        except BaseException as exc:
            outcomes = [exc] * len(group)
            if not isinstance(exc, BridgekdError | sqlite3.Error):  # a bug of this program
                raise
        finally:
            for (_, result), outcome in zip(group, outcomes, strict=True):
                if result.cancelled():
                    continue
                if isinstance(outcome, BaseException):
                    result.set_exception(outcome)
                else:
                    result.set_result(outcome)
