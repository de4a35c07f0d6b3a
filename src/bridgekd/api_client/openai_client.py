"""The openai package's client, wrapped so that no foreign exception leaves it.

The one idea: every end of a request becomes a `RequestOutcome` that says what may have been billed,
and the key is removed from every text before another module sees it. Foreign exceptions are not
chained, because they carry the request with its key.
"""

import asyncio
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from bridgekd import __version__
from bridgekd.api_client.environment import check_environment
from bridgekd.api_client.error_response import ErrorResponse
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.redact_key import KeyRedactor
from bridgekd.errors import InputError
from bridgekd.recipe import TeacherOptions, is_loopback

if TYPE_CHECKING:
    import openai

CONNECT_TIMEOUT_S = 10.0
MAX_HINT_S = 60.0  # a rate limit's reset header is a hint: a daily limit names hours

# After these errors of httpx no byte of the request was sent.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# Below WARNING these loggers write headers and addresses, which may hold a key. The levels are not
# restored: another client may still be sending.
_LOGGERS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2")
_OPENAI_DOMAIN = ".api.openai.com"
# All headers of a request to another host, besides those about its body. The openai package reads
# one of its own back from the request.
_OWN_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "gzip, deflate",
    "connection": "keep-alive",
    "user-agent": f"bridgekd/{__version__}",
}
_KEPT_HEADERS = {
    "content-length", "content-type", "transfer-encoding", "x-stainless-raw-response",
}  # fmt: skip
_REASON_TEXTS = {
    "forbidden": "it does not permit the request ({detail})",
    "quota": "the quota or credit is used up ({detail})",
    "model": "no model {model!r} at this address ({detail})",
    "address": "this address has no chat completions ({detail}); check base_url: is /v1 missing?",
    "settings": "it does not accept a setting of the recipe ({detail})",
    "other": "it does not support chat completions ({detail})",
}
_PART = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:{_PART}d)?(?:{_PART}h)?(?:{_PART}m)?(?:{_PART}s)?(?:{_PART}ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)

T = TypeVar("T")


class ApiClient:
    """A client for one server. `aclose` closes it. `redact` returns a text without the key."""

    def __init__(self, teacher: TeacherOptions, api_key: str) -> None:
        import openai  # late: `plan` works without openai

        self.teacher = teacher
        self.host = urlsplit(teacher.effective_base_url).hostname or "The teacher"
        self.redact = KeyRedactor(api_key).redact
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        # `send` limits the time of a complete attempt: a server that sends a byte now and then
        # never reaches a read timeout. To connect has a shorter limit, because that costs nothing.
        timeout = openai.Timeout(None, connect=min(CONNECT_TIMEOUT_S, teacher.timeout_s / 2))
        check_environment(teacher.effective_base_url)
        # Requests to this machine never go through a proxy of the environment.
        http_client = openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            trust_env=not is_loopback(self.host),
            event_hooks={"request": [self._limit_headers], "response": [_decode_as_utf8]},
        )
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=teacher.effective_base_url,
            timeout=timeout,
            max_retries=0,
            http_client=http_client,
        )

    async def _limit_headers(self, request: Any) -> None:
        """Remove what the environment means for OpenAI from a request to another host.

        The openai package sends OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS to any
        address; the last one may also replace a header of its own.
        """
        if f".{request.url.host}".endswith(_OPENAI_DOMAIN):
            return
        own = {
            **_OWN_HEADERS,
            "authorization": f"Bearer {self._client.api_key}",
            "host": request.url.netloc.decode(),
        }
        for name in {name.lower() for name in request.headers} - _KEPT_HEADERS:
            if name in own:  # a redirect has no authorization
                request.headers[name] = own[name]
            else:
                del request.headers[name]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def send(
        self, request: "Callable[[openai.AsyncOpenAI], Awaitable[T]]", timeout_s: float
    ) -> T | RequestOutcome:
        """Return the result of one request, or how it failed.

        Raises nothing except asyncio's cancellation.
        """
        import openai

        try:
            async with asyncio.timeout(timeout_s):
                return await request(self._client)
        except openai.APIStatusError as exc:
            headers = exc.response.headers
            request_id = exc.request_id or headers.get("request-id")
            outcome = self.classify_status(
                exc.status_code, exc.response.text, request_id, default=exc.message
            )
            wait_s = _parse_retry_after(headers) if outcome.kind == "failed" else None
            return replace(outcome, retry_after_s=wait_s, status=exc.status_code)
        except openai.APIConnectionError as exc:
            cause = exc.__cause__
            never_sent = type(cause).__name__ in _NEVER_SENT
            reason = self.redact(f"{type(cause).__name__}: {cause}" if cause else str(exc))[:300]
            return RequestOutcome("failed" if never_sent else "unknown", reason=reason)
        except TimeoutError:
            return RequestOutcome("unknown", reason=f"no answer within {timeout_s:g} s")
        except openai.OpenAIError as exc:
            return RequestOutcome("unknown", reason=type(exc).__name__)

    def classify_status(
        self, status: int, body: str, request_id: str | None, *, default: str = ""
    ) -> RequestOutcome:
        """Return the outcome of an HTTP error; `default` is its message if the body has none."""
        body = self.redact(body)
        error = ErrorResponse.parse(status, body)
        detail = self.redact(error.message or default or f"status {status}")[:300]
        kind = error.classify(self.host)
        if kind == "key":
            # Servers quote the key here, complete or in part, so their text is not passed on.
            name = self.teacher.api_key_env
            key = f"the key in {name}" if name else "a request without a key"
            return RequestOutcome("down", reason=f"it rejected {key} ({status})")
        if kind in _REASON_TEXTS:
            reason = _REASON_TEXTS[kind].format(model=self.teacher.model, detail=detail)
            return RequestOutcome("down", reason=reason)
        if kind == "refused":
            clean_id = self.redact(request_id) if request_id else None
            return RequestOutcome("refused", body, clean_id, detail)
        if kind == "unknown":
            return RequestOutcome("unknown", reason=detail)
        return RequestOutcome("failed", reason=detail, rate_limited=kind == "rate_limited")


async def _decode_as_utf8(response: Any) -> None:
    """Make `response.text` UTF-8, which JSON always is (RFC 8259); invalid bytes become U+FFFD.

    The charset header of a server may be wrong, and Python has charsets that fail or are no text
    (idna, zlib). The openai package reads the text of an error itself, so this is set on arrival.
    """
    response.encoding = "utf-8"


def _parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After, else of the reset header of a limit that is used up.

    None for a Retry-After that is a date: the backoff decides then.
    """
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        pass
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}") == "0":
            hint = parse_reset_header(headers.get(f"x-ratelimit-reset-{limit}", ""))
            return None if hint is None else min(hint, MAX_HINT_S)
    return None


def compute_backoff_s(n_failed: int, base_s: float, max_s: float, rng: random.Random) -> float:
    """Return the seconds to wait after the n-th failure in a row: doubling, minus up to half."""
    return float(min(max_s, base_s * 2 ** (n_failed - 1)) * rng.uniform(0.5, 1.0))


def parse_reset_header(header: str) -> float | None:
    """Return the seconds of a reset header in OpenAI's format; None for anything else.

    >>> parse_reset_header("1h2m3.5s")
    3723.5
    """
    match = _DURATION.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True))


def read_key_variable(name: str | None, section: str) -> str:
    """Return the key in the environment variable that a section of the recipe names.

    Without a name, return "none". Raises InputError if the variable holds no valid key.
    """
    if name is None:
        return "none"
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"The environment variable {name} holds no key. Set it, or set "
            f"{section}.api_key_env: null for a server that needs none."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            f"The key in the environment variable {name} has characters that no key has. Set it "
            f"again."
        )
    return key
