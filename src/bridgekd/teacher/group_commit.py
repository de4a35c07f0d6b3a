"""Groups what many tasks want written into few durable transactions.

The one idea: while one group is being made durable in a thread, the next one gathers. A piece is
done when its group is on the disk, never before.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from bridgekd.errors import BridgekdError
from bridgekd.ledger.ledger import Ledger

_PendingWrite = tuple[Callable[[], Any], asyncio.Future[Any]]


class GroupCommitter:
    """The way of one event loop to an open ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._waiting: list[_PendingWrite] = []
        self._writing: asyncio.Task[None] | None = None

    async def commit(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, once it is durable; raises what it raised, with nothing of it done.

        `work` runs in another thread. It is carried out even if its caller is cancelled.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await done

    async def drain(self) -> None:
        """Waits until everything asked for so far is durable."""
        while self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._write_group(group)
        finally:  # whatever happened: nobody may wait for ever
            self._writing = asyncio.create_task(self._write()) if self._waiting else None

    async def _write_group(self, group: list[_PendingWrite]) -> None:
        try:
            works = [work for work, _ in group]
            outcomes = await asyncio.to_thread(self.ledger.run_in_transaction, works)
        except (BridgekdError, sqlite3.Error) as exc:
            outcomes = [exc] * len(group)
        except BaseException as exc:  # a fault of this program
            _set_results(group, [exc] * len(group))
            raise
        _set_results(group, outcomes)


def _set_results(group: list[_PendingWrite], outcomes: list[Any]) -> None:
    for (_, done), outcome in zip(group, outcomes, strict=True):
        if done.cancelled():
            continue
        if isinstance(outcome, BaseException):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)
