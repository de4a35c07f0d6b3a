"""How one attempt at a request ended, whatever it was sent over."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """How one attempt ended.

    answered: `raw` is the body. refused: so is it, an error about this one request. failed: not
    served, may be tried again. unknown: may have been served, may be tried again. down: not
    served, and trying again is of no use. `reason` is for people and holds no secret. `status` is
    that of an HTTP error.
    """

    kind: Literal["answered", "refused", "failed", "unknown", "down"]
    raw: str = ""
    request_id: str | None = None
    reason: str = ""
    rate_limited: bool = False
    retry_after_s: float | None = None
    status: int | None = None
