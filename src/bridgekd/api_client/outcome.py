"""How one attempt at a request ended, on any transport."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """How one attempt ended. `reason` is for people and holds no secret; `status` is HTTP's.

    answered: `raw` is the response body. refused: `raw` is an error about this one request.
    failed: not served; a retry may succeed. unknown: may have been served; a retry may succeed.
    down: not served, and a retry cannot succeed.
    """

    kind: Literal["answered", "refused", "failed", "unknown", "down"]
    raw: str = ""
    request_id: str | None = None
    reason: str = ""
    rate_limited: bool = False
    retry_after_s: float | None = None
    status: int | None = None
