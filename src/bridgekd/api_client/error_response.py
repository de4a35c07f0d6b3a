"""Reads an error that a teacher's server sent: what it means for the call, and for the run.

Pure, over status and body. Servers agree on little: the same trouble has other statuses, other
codes and other shapes of body; docs/teachers.md has who says what, with sources.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from bridgekd.api_client.chat_completion import parse_json

ErrorKind = Literal[
    "key", "money", "model", "settings", "other", "refused", "unknown", "throttled", "failed"
]

_QUOTA_CODES = frozenset((
    "insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "billing_error",
    "billing_not_active", "credit_balance_exhausted", "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded", "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
))  # fmt: skip
_PARAMETER_CODES = frozenset((
    "unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden",
))  # fmt: skip
_PARAMETERS = frozenset((
    "model", "temperature", "max_tokens", "max_completion_tokens", "top_p", "seed", "stop",
    "response_format", "reasoning_effort",
))  # fmt: skip
_NAMED = "|".join(sorted(_PARAMETERS - {"model", "stop"}))
_PARAMETER_REJECTED = re.compile(rf"\b({_NAMED})\b.*\b(deprecated|not supported|unsupported)")
_QUOTA_MESSAGE = re.compile(
    r"credit balance is too low|insufficient (balance|credit)|api usage limits|key limit exceeded",
    re.IGNORECASE,
)
# A gateway gave up waiting or fell over; the model may have answered and billed.
_MAYBE_SERVED = (408, 502, 504, 520, 524)
_RETRYABLE = (409, 425, 429)
_RATE_LIMITED = (429, 503, 529)
_REFUSED = (400, 413, 422, 451)
_FLAGS_WITH_403 = ("openrouter.ai",)  # there it means the question, elsewhere the key


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error: its status, everything in it that is a code, the parameter named, the message."""

    status: int
    codes: frozenset[str]
    param: str
    message: str

    @staticmethod
    def parse(status: int, body: str) -> "ErrorResponse":
        """What a body says, in whatever shape: OpenAI's, Google's (a list), or a flat one."""
        tree = parse_json(body)
        if isinstance(tree, list) and tree:
            tree = tree[0]
        error = tree.get("error", tree) if isinstance(tree, dict) else {}
        if not isinstance(error, dict):
            error = {"message": error}
        message = error.get("message") or error.get("detail") or ""
        words = " ".join(str(message).split())
        return ErrorResponse(status, frozenset(_codes(error)), str(error.get("param")), words)

    def classify(self, host: str) -> ErrorKind:
        """What it means.

        Of no use to ask again, whatever the question: key, money, model, settings, other. About
        this question: refused. Worth another try: throttled, failed (neither was served), unknown
        (it may have been).
        """
        if self.status == 402 or self.codes & _QUOTA_CODES or _QUOTA_MESSAGE.search(self.message):
            return "money"
        if self.status == 403 and host in _FLAGS_WITH_403:
            return "refused"
        if self.status in (401, 403) or "API_KEY_INVALID" in self.codes:
            return "key"
        if self.status == 404 or "model_not_found" in self.codes:
            return "model"
        if self.status in (400, 422) and self._is_about_settings():
            return "settings"
        if self.status in _REFUSED:
            return "refused"
        if self.status in _MAYBE_SERVED:
            return "unknown"
        if self.status in _RATE_LIMITED:
            return "throttled"
        return "failed" if self.status in _RETRYABLE or self.status >= 500 else "other"

    def _is_about_settings(self) -> bool:
        """Every request of this recipe would get it, so that no row should be spent on it."""
        if self.codes & _PARAMETER_CODES or self.param in _PARAMETERS:
            return True
        return _PARAMETER_REJECTED.search(self.message.replace("`", "")) is not None


def _codes(error: Any, depth: int = 0) -> list[str]:
    """All short words under the names that servers give their codes, details included."""
    if depth > 3:
        return []
    if isinstance(error, list):
        return [code for part in error for code in _codes(part, depth + 1)]
    if not isinstance(error, dict):
        return []
    names = ("code", "type", "status", "reason", "error_code")
    found = [str(error[name]) for name in names if isinstance(error.get(name), str)]
    for name in ("details", "detail", "message", "metadata"):
        found += _codes(error.get(name), depth + 1)
    return found
