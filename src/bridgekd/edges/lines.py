"""What every way to a teacher has in common: a line is asked and gives an Outcome."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from bridgekd.config import Teacher


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


class Line(AbstractAsyncContextManager["Line"], Protocol):
    """A way to the teacher, open while it is entered."""

    @property
    def width(self) -> int:
        """The most calls that may be in flight."""

    @property
    def adopted(self) -> Mapping[str, int]:
        """Attempts, by key, that were sent before this process began and are still on their way."""

    async def ask(self, key: str, call: Mapping[str, Any]) -> Outcome:
        """Sends one call once. Raises nothing but Stopped and asyncio's cancellation."""

    def unsent(self) -> set[str]:
        """The keys that were asked for but have certainly not left this machine."""


def host_of(teacher: Teacher) -> str:
    """The server's name for messages, without what else a URL may carry."""
    if teacher.transport == "replay":
        return "the recordings"
    return urlsplit(teacher.url).hostname or "The teacher"
