"""The openai package's client, kept so that nothing foreign leaves it.

The one idea: every way a request can end becomes an Outcome that says what the money may have
done, and the key is taken out of every text before anyone else sees it. Foreign exceptions are not
chained, because they carry the request with its key.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from bridgekd.api_client.error_response import ErrorResponse
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.rate_limit import parse_reset_header
from bridgekd.errors import InputError
from bridgekd.recipe import TeacherOptions

if TYPE_CHECKING:
    import openai

REDACTED_KEY = "[key]"
CONNECT_TIMEOUT_S = 10.0
MAX_HINT_S = 60.0  # a limit's reset header is a hint: a daily limit names hours

# By the end of these no byte of the request had left, whatever version of httpx openai brings
# along.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# Below warnings these write down headers and addresses, where a key may be. They stay raised: a
# level that one client restores would take effect while another one is still sending.
_LOGGERS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2")
_REASON_TEXTS = {
    "money": "the quota or credit is used up ({said})",
    "model": "no model {model!r} at this address ({said})",
    "settings": "it does not take a setting of the recipe ({said})",
    "other": "it does not speak chat completions ({said})",
}

T = TypeVar("T")


class ApiClient:
    """A client for one teacher; `aclose` ends it."""

    def __init__(self, teacher: TeacherOptions, api_key: str) -> None:
        import openai  # late: planning needs none of it

        self.teacher = teacher
        self.host = urlsplit(teacher.effective_base_url).hostname or "The teacher"
        self._secrets = _spellings(api_key)
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        # The time of a whole attempt is kept in `ask`; a server that drips bytes would never end
        # the read timeout. Connecting has a shorter one of its own, because it is free to fail.
        timeout = openai.Timeout(None, connect=min(CONNECT_TIMEOUT_S, teacher.timeout_s / 2))
        # A proxy of the environment never stands between this machine and itself.
        http_client = openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            trust_env=self.host not in ("localhost", "127.0.0.1", "::1"),
        )
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=teacher.effective_base_url,
            timeout=timeout,
            max_retries=0,
            http_client=http_client,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def send(
        self, request: "Callable[[openai.AsyncOpenAI], Awaitable[T]]", timeout_s: float
    ) -> T | RequestOutcome:
        """What one request gives, or how it failed. Raises nothing but asyncio's cancellation."""
        import openai

        try:
            async with asyncio.timeout(timeout_s):
                return await request(self._client)
        except openai.APIStatusError as exc:
            return self._classify_status(exc)
        except openai.APIConnectionError as exc:
            cause = exc.__cause__
            never_sent = type(cause).__name__ in _NEVER_SENT
            reason = self.redact(f"{type(cause).__name__}: {cause}" if cause else str(exc))[:300]
            return RequestOutcome("failed" if never_sent else "unknown", reason=reason)
        except TimeoutError:
            return RequestOutcome("unknown", reason=f"no answer within {timeout_s:g} s")
        except openai.OpenAIError as exc:
            return RequestOutcome("unknown", reason=type(exc).__name__)

    def _classify_status(self, exc: "openai.APIStatusError") -> RequestOutcome:
        headers = exc.response.headers
        name = exc.request_id or headers.get("request-id")
        outcome = self.classify_status(exc.status_code, exc.response.text, name, exc.message)
        wait_s = _wait_s(headers) if outcome.kind == "failed" else None
        return replace(outcome, retry_after_s=wait_s, status=exc.status_code)

    def classify_status(
        self, status: int, body: str, request_id: str | None, otherwise: str = ""
    ) -> RequestOutcome:
        """What an error means; `otherwise` is its message where the body has none."""
        refusal = ErrorResponse.parse(status, body)
        said = self.redact(refusal.message or otherwise or f"status {status}")[:300]
        kind = refusal.classify(self.host)
        if kind == "key":
            # Servers like to quote the key here, whole or in part: their words are not passed on.
            name = self.teacher.api_key_env
            with_key = f"the key in {name}" if name else "a call without a key"
            return RequestOutcome("down", reason=f"it refused {with_key} ({status})")
        if kind in ("money", "model", "settings", "other"):
            return RequestOutcome(
                "down", reason=_REASON_TEXTS[kind].format(model=self.teacher.model, said=said)
            )
        if kind == "refused":
            name = self.redact(request_id) if request_id else None
            return RequestOutcome("refused", self.redact(body), name, said)
        if kind == "unknown":
            return RequestOutcome("unknown", reason=said)
        return RequestOutcome("failed", reason=said, rate_limited=kind == "throttled")

    def redact(self, text: str) -> str:
        """The text without the key."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED_KEY)
        return text


def _spellings(api_key: str) -> tuple[str, ...]:
    """The key as JSON may spell it. A short word is no secret and may be part of an answer."""
    return (api_key, api_key.replace("/", "\\/")) if len(api_key) >= 8 else ()


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait: Retry-After in seconds, else what its limits' headers
    hint at. A Retry-After that is a date is left to the backoff.
    """
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        pass
    for kind in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
            hint = parse_reset_header(headers.get(f"x-ratelimit-reset-{kind}", ""))
            return None if hint is None else min(hint, MAX_HINT_S)
    return None


def read_key_variable(name: str | None, section: str) -> str:
    """The key from the environment variable that a section of the recipe names; "none" where it
    names none.
    """
    if name is None:
        return "none"
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"The environment variable {name} holds no key; set it, or give "
            f"{section}.api_key_env: null for a server that wants none."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"The key in the environment variable {name} has characters no key has.")
    return key
