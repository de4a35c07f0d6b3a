"""What every way to a teacher has in common: a line is asked and gives an Outcome."""

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.replies import Bill
from bridgekd.ledger.attempts import OpenAttempt
from bridgekd.teacher.orders import Order


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    answered: `raw` is the body. refused: so is it, an error about this one request. failed: not
    served, may be tried again. unknown: may have been served, may be tried again. down: not
    served, and trying again is of no use. `reason` is for people and holds no secret.
    """

    kind: Literal["answered", "refused", "failed", "unknown", "down"]
    raw: str = ""
    request_id: str | None = None
    reason: str = ""
    throttled: bool = False
    retry_after_s: float | None = None


class Line(Protocol):
    """A way to the teacher, open while it is entered.

    `width` is the most calls that may be in flight. `adopted` are attempts, by key, that were sent
    before this process began and are on their way; who asks for one takes it out. `outlives` says
    whether calls go on when this process ends; on such a line it is of no use to wait before
    trying again. `resting` is set by the buying while it admits nothing until a call has ended.
    """

    width: int
    adopted: dict[str, OpenAttempt]
    outlives: bool
    resting: bool

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """The most a call can be billed: `bound`, unless the line knows better."""

    async def ask(self, order: Order) -> Outcome:
        """Sends one call once. Raises nothing but Stopped and asyncio's cancellation."""

    async def stop(self) -> set[str]:
        """Sends nothing more and gives up waiting for what goes on without us. Returns the keys
        that were asked for but have certainly not left this machine.
        """


def host_of(teacher: Teacher) -> str:
    """The server's name for messages, without what else a URL may carry."""
    if teacher.transport == "replay":
        return "the recordings"
    return urlsplit(teacher.url).hostname or "The teacher"
