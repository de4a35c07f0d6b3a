"""The waits between the attempts of one request, as long as the server asks or a backoff says."""

import asyncio
import math
import random
from collections.abc import Callable

from bridgekd.api_client.openai_client import compute_backoff_s
from bridgekd.api_client.outcome import RequestOutcome

MAX_BACKOFF_S = 60.0
SHOWN_WAIT_S = 10.0  # a longer wait is shown to the user
# A limit per minute without a hint needs longer waits than an error does.
RATE_LIMIT_FACTOR = 8


class RetryTimer:
    """Waits before a request is sent again, and shows a long wait once for all requests.

    host: the server's name for messages. base_s: the first wait of the backoff.
    """

    def __init__(self, host: str, base_s: float, note: Callable[[str], None]) -> None:
        self._host, self._base_s, self._note = host, base_s, note
        self._shown_until = -math.inf  # the end of the last wait that was shown

    async def wait(
        self, outcome: RequestOutcome, n_failed: int, rng: random.Random, *, is_served: bool
    ) -> None:
        """Wait after the outcome of an attempt. is_served: other requests were answered."""
        delay_s, base_s = outcome.retry_after_s, self._base_s
        if outcome.rate_limited and delay_s is None and not is_served:
            base_s *= RATE_LIMIT_FACTOR
        wait_s = compute_backoff_s(max(1, n_failed), base_s, MAX_BACKOFF_S, rng)
        if is_served and delay_s is not None:
            wait_s = 0.0  # the throttle spaces the requests
        wait_s += delay_s or 0.0
        until = asyncio.get_running_loop().time() + wait_s
        if wait_s >= SHOWN_WAIT_S and until >= self._shown_until + SHOWN_WAIT_S:
            self._shown_until = until
            why = "asks to wait" if delay_s else "did not answer; the next try is in"
            self._note(f"{self._host} {why} {wait_s:.0f} s ({outcome.reason}).")
        await asyncio.sleep(wait_s)
