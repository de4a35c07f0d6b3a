"""Whether a question or the server is the cause of a request that fails each time.

The one idea: only the fate of other requests shows it. A request that failed waits until another
one that was sent later is answered. If none is, because all open requests have failed, the server
is the cause, unless each of them failed alone. A wrong guess must not cost a question its answer,
so a server that goes down while requests are open is never taken for a bad question.
"""

import asyncio
import math
from dataclasses import dataclass

from bridgekd.api_client.outcome import RequestOutcome

# Requests that failed and wait do not take the place of others, up to this number.
MAX_WAITING = 2
# More questions than this, and than this fraction of the answers: the server is the cause.
MIN_GIVEN_UP, MAX_GIVEN_UP_FRACTION = 8, 0.1


@dataclass(slots=True)
class _FailedRequest:
    """A request that waits. `has_failed_before`: in an earlier purchase. `is_reported`: the server
    sent an error of its own.
    """

    first_failed_at: float
    has_failed_before: bool
    is_reported: bool
    is_alone: asyncio.Future[bool]


class FailedRequests:
    """The open requests that have failed, and what the answers to others say about them."""

    def __init__(self) -> None:
        self.n_given_up = 0
        self._waiting: list[_FailedRequest] = []
        self._answered_at = -math.inf

    @property
    def n_waiting(self) -> int:
        """The number of requests that wait for the fate of others."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent in place of one that will wait now."""
        return self.n_waiting < MAX_WAITING

    def count_beside(self) -> int:
        """Return how many requests may be open beside the usual maximum."""
        return self.n_waiting if self.n_waiting <= MAX_WAITING else 0

    async def wait(
        self, outcome: RequestOutcome, first_failed_at: float, *, has_failed_before: bool
    ) -> bool:
        """Return whether this request fails alone. It is then sent once more, for the last time."""
        is_reported = outcome.kind in ("failed", "rejected") and not outcome.rate_limited
        is_alone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        has_failed_before &= is_reported
        request = _FailedRequest(first_failed_at, has_failed_before, is_reported, is_alone)
        self._waiting.append(request)
        try:
            return await is_alone
        finally:
            self._waiting.remove(request)

    def record_answer(self, sent_at: float, now: float) -> None:
        """Let the requests go on that had failed before the answered one was sent."""
        self._answered_at = now
        for request in self._waiting:
            if request.first_failed_at < sent_at and not request.is_alone.done():
                request.is_alone.set_result(True)

    def decide(self, *, is_end: bool) -> None:
        """Decide without another answer: all open requests wait. is_end: no request will follow.

        A request failed alone if another one was answered after its first failure, or if it failed
        in an earlier purchase, too. At the end one other may remain.
        """
        others = [
            request
            for request in self._waiting
            if request.first_failed_at >= self._answered_at and not request.has_failed_before
        ]
        is_last_one = is_end and len(others) == 1 and others[0].is_reported
        are_alone = not others or (is_last_one and self._answered_at > -math.inf)
        for request in self._waiting:
            if not request.is_alone.done():
                request.is_alone.set_result(are_alone)

    def allows_another(self, n_answered: int) -> bool:
        """Return whether one more question may be given up beside `n_answered` answers."""
        return self.n_given_up < max(MIN_GIVEN_UP, n_answered * MAX_GIVEN_UP_FRACTION)
