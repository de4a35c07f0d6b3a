"""Reads an error of a teacher's server: what it means for the request and for the run.

Pure, over status and body. Servers differ in statuses, codes and the shape of the body;
docs/teachers.md lists what each provider sends, with sources.
"""

import re
from dataclasses import dataclass
from typing import Literal

from bridgekd.api_client.chat_completion import parse_json
from bridgekd.api_client.retry_delay import find_body_delay

ErrorKind = Literal[
    "key", "forbidden", "quota", "model", "address", "settings", "length", "page", "other",
    "refused", "unknown", "rate_limited", "failed",
]  # fmt: skip

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
_ABOUT_KEY = re.compile(
    r"key(?!word)|authentication|unauthenticated|unauthorized|credential|access[ _]?token",
    re.IGNORECASE,
)
_NAMED = "|".join(sorted(_PARAMETERS - {"model", "stop"}))
_PARAMETER_REJECTED = re.compile(rf"\b({_NAMED})\b.*\b(deprecated|not supported|unsupported)")
_QUOTA_MESSAGE = re.compile(
    r"credit balance is too low|insufficient (balance|credit)|api usage limits|key limit exceeded",
    re.IGNORECASE,
)
# The request is larger than the limit of a minute (OpenAI sends 429 for it): no wait helps.
_TOO_LARGE = re.compile(r"\brequest (is )?too large\b", re.IGNORECASE)
# A limit of tokens that leaves no room for this prompt, or for any.
_CONTEXT_LENGTH = re.compile(r"context.{0,20}\b(length|window|size)\b", re.IGNORECASE)
_TAG = re.compile(r"<(style|script)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_MAX_MESSAGE, _MAX_BODY = 2_000, 20_000  # characters that are shown
# A gateway stopped waiting or failed; the model may have answered and billed.
_MAYBE_SERVED = (408, 502, 504, 520, 524)
_RETRYABLE = (409, 425, 429)
_RATE_LIMITED = (429, 498, 503, 529)  # 498: the capacity of a flexible service tier (Groq)
_REFUSED = (400, 413, 422, 451)
_MODERATION_403_HOSTS = ("openrouter.ai",)  # 403 is about the question here


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error: its status, all its codes, the parameter that it names, and its message.

    has_json: whether the body is JSON. If not, no API wrote it, and plain text is the message.
    retry_delay_s: the seconds to wait that the body states; None without them.
    """

    status: int
    codes: frozenset[str]
    param: str
    message: str
    has_json: bool
    retry_delay_s: float | None

    @staticmethod
    def parse(status: int, body: str) -> "ErrorResponse":
        """Return the error in a body of any shape: OpenAI's, Google's (a list), or a flat one."""
        tree = parse_json(body)
        has_json = tree is not None or body.strip() == "null"
        if isinstance(tree, list) and tree:
            tree = tree[0]
        error = tree.get("error", tree) if isinstance(tree, dict) else {}
        if not has_json and not body.lstrip().startswith("<"):
            error = body
        if not isinstance(error, dict):
            error = {"message": error}
        message = to_printable_line(str(error.get("message") or error.get("detail") or ""))
        codes = frozenset(_collect_codes(error))
        delay_s = find_body_delay(error, message)
        return ErrorResponse(status, codes, str(error.get("param")), message, has_json, delay_s)

    @property
    def is_from_api(self) -> bool:
        """Return whether the body is an API's error, not the page of a gateway."""
        return self.has_json and bool(self.message or self.codes)

    def classify(self, host: str) -> ErrorKind:
        """Return what the error means.

        key, quota, model, address: every request would fail. forbidden, settings, length, page,
        other: a retry would fail, and perhaps every request. refused: this request fails.
        rate_limited, failed: not served; a retry may succeed. unknown: may have been served.
        """
        if self.status == 402 or self.codes & _QUOTA_CODES or _QUOTA_MESSAGE.search(self.message):
            return "quota"
        if self.status == 403 and host in _MODERATION_403_HOSTS:
            return "refused"
        if self.status == 401 or "API_KEY_INVALID" in self.codes or self._is_403_about_key():
            return "key"
        if self.status == 404 and not self.has_json:
            return "address"
        if self.status == 404 or "model_not_found" in self.codes:
            return "model"
        if self.status == 403:
            return "forbidden"
        if self.status in (400, 422) and self._is_about_settings():
            return "length" if _CONTEXT_LENGTH.search(self.message) else "settings"
        if self.status == 429 and _TOO_LARGE.search(self.message):
            return "refused"
        if self.status in _REFUSED:
            return "refused" if self.is_from_api else "page"
        if self.status in _MAYBE_SERVED:
            return "unknown"
        if self.status in _RATE_LIMITED:
            return "rate_limited"
        return "failed" if self.status in _RETRYABLE or self.status >= 500 else "other"

    def _is_403_about_key(self) -> bool:
        """Return whether a 403 is about the key. Its codes decide, or its message without one.

        Other causes are a country, a model that the account has no access to, or a firewall.
        """
        texts = self.codes or {self.message}
        return self.status == 403 and any(_ABOUT_KEY.search(text) for text in texts)

    def _is_about_settings(self) -> bool:
        """Return whether every request of this recipe would get this error."""
        if self.codes & _PARAMETER_CODES or self.param in _PARAMETERS:
            return True
        return _PARAMETER_REJECTED.search(self.message.replace("`", "")) is not None


def describe_body(body: str) -> str:
    """Return the start of a body as one line of text, without the tags of a page.

    >>> describe_body("<html><style>b {}</style><h1>403 Forbidden</h1>nginx</html>")
    '403 Forbidden nginx'
    """
    return to_printable_line(_TAG.sub(" ", body[:_MAX_BODY]))


def to_printable_line(text: str) -> str:
    """Return one line without control characters, which a terminal would execute."""
    text = text[:_MAX_MESSAGE]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _collect_codes(error: object, depth: int = 0) -> list[str]:
    """Return the strings in all fields that servers use for codes, nested details included."""
    if depth > 3:
        return []
    if isinstance(error, list):
        return [code for part in error for code in _collect_codes(part, depth + 1)]
    if not isinstance(error, dict):
        return []
    names = ("code", "type", "status", "reason", "error_code")
    codes = [error[name] for name in names if isinstance(error.get(name), str)]
    for name in ("details", "detail", "message", "metadata"):
        codes += _collect_codes(error.get(name), depth + 1)
    return codes
