"""Lets calls out to the teacher, one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgekd.core.pace import Pace


class Gate:
    """As many calls at once and as fast as the pace allows, in the order they came."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()
        self._n_out = 0

    @asynccontextmanager
    async def out(self) -> AsyncIterator[float]:
        """Waits until one more call may go out, and gives when that was; the call is out inside."""
        sent_at = await self._enter()
        try:
            yield sent_at
        finally:
            self._n_out -= 1
            self._left.set()

    async def _enter(self) -> float:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while True:
                if self._n_out >= self._pace.width:
                    self._left.clear()
                    await self._left.wait()
                elif wait_s := self._pace.wait_s(clock()):
                    await asyncio.sleep(wait_s)
                else:
                    break
            self._n_out += 1
            self._pace.sent(now := clock())
            return now
