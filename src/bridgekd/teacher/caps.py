"""The user's own caps on requests and tokens a minute, kept for one buying."""

import asyncio
import time

from bridgekd.config import Teacher
from bridgekd.core.pace import Allowance
from bridgekd.core.replies import Bill

BURST = 1 / 60  # of a minute's amount may go out at once; the rest of it comes evenly


class Caps:
    """Waits until a call fits; a call counts as the most it can be until its answer is there.

    What goes out within any minute never passes a cap.
    """

    def __init__(self, teacher: Teacher) -> None:
        live = teacher.transport == "live"
        self._requests = _allowance(teacher.requests_per_minute if live else None)
        self._tokens = _allowance(teacher.tokens_per_minute if live else None)
        self._turn = asyncio.Lock()  # first come, first served
        self._takes: dict[str, int] = {}  # by key: the last take of its tokens

    async def wait(self, key: str, most: Bill) -> None:
        """Returns once a call of at most `most` may be sent."""
        async with self._turn:
            if self._requests is not None:
                await _take(self._requests, 1)
            if self._tokens is not None:
                self._takes[key] = await _take(self._tokens, _tokens(most))

    def give_back(self, key: str, most: Bill, actual: Bill) -> None:
        """What a call did not use may be used by others."""
        take = self._takes.pop(key, None)
        if self._tokens is not None and take is not None:
            self._tokens.give_back(max(0, _tokens(most) - _tokens(actual)), take)


async def _take(allowance: Allowance, amount: float) -> int:
    """Takes an amount in as many pieces as go out at once; returns the last take."""
    take = 0
    while amount > 0:
        piece = min(amount, allowance.burst)
        while (wait_s := allowance.wait_s(time.monotonic(), piece)) > 0:
            await asyncio.sleep(wait_s)
        take = allowance.take(time.monotonic(), piece)
        amount -= piece
    return take


def _allowance(per_minute: float | None) -> Allowance | None:
    return None if per_minute is None else Allowance(per_minute * (1 - BURST), per_minute * BURST)


def _tokens(bill: Bill) -> int:
    return bill.n_prompt_tokens + bill.n_completion_tokens
