"""How one attempt at a request ended, on any transport."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """How one attempt ended. `reason` is for people and holds no secret; `status` is HTTP's.

    answered: `raw` is the response body. refused: `raw` is an error about this one request.
    failed: not served; a retry may succeed. unknown: may have been served; a retry may succeed.
    rejected: not served, and a retry would fail; whether others succeed shows whether the request
    or the server is the cause. down: not served, and no request can succeed.
    is_server_fault: the request is not the cause: the server was not reached, or limits the rate.
    """

    kind: Literal["answered", "refused", "failed", "unknown", "rejected", "down"]
    raw: str = ""
    request_id: str | None = None
    reason: str = ""
    rate_limited: bool = False
    retry_after_s: float | None = None
    status: int | None = None
    is_server_fault: bool = False
