"""The openai package's client, wrapped so that no foreign exception leaves it.

The one idea: every end of a request becomes a `RequestOutcome` that says what may have been billed,
and the key is removed from every text before another module sees it. Foreign exceptions are not
chained, because they carry the request with its key.
"""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from bridgekd import __version__
from bridgekd.api_client.environment import check_environment
from bridgekd.api_client.error_response import ErrorResponse, describe_body, to_printable_line
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.redact_key import KeyRedactor
from bridgekd.api_client.retry_delay import find_header_delay, find_reset_delay
from bridgekd.errors import InputError
from bridgekd.recipe import TeacherOptions, is_loopback

if TYPE_CHECKING:
    import openai

CONNECT_TIMEOUT_S = 10.0
MAX_BODY_BYTES = 16_000_000  # decoded, of one response; an answer has far less
MAX_ERROR_BYTES = 1_000_000

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
    "length": "prompt and max_tokens do not fit the context length of the model ({detail})",
    "page": "it sent no error of an API, but a page ({detail})",
    "other": "it does not support chat completions ({detail})",
}
_MAYBE_ONE_REQUEST = ("forbidden", "settings", "length", "page", "other")
_RATE_LIMIT_STATUSES = (429, 498)

T = TypeVar("T")


_max_body_bytes = ContextVar("max_body_bytes", default=MAX_BODY_BYTES)


class ResponseTooLargeError(Exception):
    """The body of a response is above its limit. `ApiClient.send` turns this into an outcome."""


@contextmanager
def allow_body_bytes(limit: int) -> Iterator[None]:
    """Change the limit of a response's body for the requests inside, in bytes after decoding."""
    token = _max_body_bytes.set(limit)
    try:
        yield
    finally:
        _max_body_bytes.reset(token)


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
            # The questions would go to another host, or its answer be taken for the teacher's.
            follow_redirects=False,
            trust_env=not is_loopback(self.host),
            event_hooks={"request": [self._limit_headers], "response": [_read_response]},
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
            if 300 <= exc.status_code < 400:
                reason = self.redact(_describe_redirect(headers))
                return RequestOutcome("down", reason=reason, status=exc.status_code)
            request_id = exc.request_id or headers.get("request-id")
            outcome = self.classify_status(exc.status_code, exc.response.text, request_id)
            if outcome.kind == "failed":
                delays_s = (find_header_delay(headers), outcome.retry_after_s)
                delay_s = next((s for s in delays_s if s is not None), find_reset_delay(headers))
                outcome = replace(outcome, retry_after_s=delay_s)
            return replace(outcome, status=exc.status_code)
        except openai.APIConnectionError as exc:
            cause = exc.__cause__
            if isinstance(cause, ResponseTooLargeError):  # openai 2 wraps it
                return RequestOutcome("answered", reason=str(cause))
            never_sent = type(cause).__name__ in _NEVER_SENT
            reason = self.redact(f"{type(cause).__name__}: {cause}" if cause else str(exc))[:300]
            kind: Literal["failed", "unknown"] = "failed" if never_sent else "unknown"
            return RequestOutcome(kind, reason=reason, is_server_fault=never_sent)
        except ResponseTooLargeError as exc:
            return RequestOutcome("answered", reason=str(exc))
        except TimeoutError:
            return RequestOutcome("unknown", reason=f"no answer within {timeout_s:g} s")
        except openai.OpenAIError as exc:
            return RequestOutcome("unknown", reason=type(exc).__name__)

    def classify_status(self, status: int, body: str, request_id: str | None) -> RequestOutcome:
        """Return the outcome of an HTTP error."""
        body = self.redact(body)
        error = ErrorResponse.parse(status, body)
        text = error.message or f"status {status}: {describe_body(body)}".rstrip(": ")
        detail = self.redact(text)[:300]
        kind = error.classify(self.host)
        if kind == "key":
            # Servers quote the key here, complete or in part, so their text is not passed on.
            name = self.teacher.api_key_env
            key = f"the key in {name}" if name else "a request without a key"
            return RequestOutcome("down", reason=f"it rejected {key} ({status})")
        if kind in _REASON_TEXTS:
            reason = _REASON_TEXTS[kind].format(model=self.teacher.model, detail=detail)
            return RequestOutcome(
                "rejected" if kind in _MAYBE_ONE_REQUEST else "down", reason=reason
            )
        if kind == "refused":
            clean_id = self.redact(request_id) if request_id else None
            return RequestOutcome("refused", body, clean_id, detail)
        if kind == "unknown":
            return RequestOutcome("unknown", reason=detail)
        return RequestOutcome(
            "failed",
            reason=detail,
            rate_limited=kind == "rate_limited",
            retry_after_s=error.retry_delay_s,
            # Other statuses of an overloaded server may be about a request that overloads it.
            is_server_fault=status in _RATE_LIMIT_STATUSES,
        )


async def _read_response(response: Any) -> None:
    """Read the body up to a limit, and make its text UTF-8.

    A body has no end that a server must keep to, and a small one may decode to a large one.
    JSON is always UTF-8 (RFC 8259); invalid bytes become U+FFFD. The charset header may be wrong,
    and Python has charsets that fail or are no text (idna, zlib). The openai package reads the text
    of an error itself, so all this happens on arrival. Raises ResponseTooLargeError, but cuts the
    body of an error.
    """
    response.encoding = "utf-8"
    is_error = response.status_code >= 300
    limit = MAX_ERROR_BYTES if is_error else _max_body_bytes.get()
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > limit:
            if not is_error:
                raise ResponseTooLargeError(f"its response is larger than {limit / 1e6:g} MB")
            break
    response._content = bytes(content[:limit])  # as `aread` does, which has no limit


def _describe_redirect(headers: Mapping[str, str]) -> str:
    """Return where a redirect leads, without the query, which may hold a secret."""
    target = to_printable_line(headers.get("location", "").partition("?")[0])[:200]
    to = f"to {target}, where nothing is sent" if target else "and names no target"
    return f"it redirects {to}; set base_url to the address that answers"


def compute_backoff_s(n_failed: int, base_s: float, max_s: float, rng: random.Random) -> float:
    """Return the seconds to wait after the n-th failure in a row: doubling, minus up to half."""
    return float(min(max_s, base_s * 2 ** (n_failed - 1)) * rng.uniform(0.5, 1.0))


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
