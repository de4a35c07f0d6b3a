"""One chat completion over HTTP, and what came of it as a value.

The one idea: nothing foreign leaves this module. Every way a call can end is an Outcome that says
what the money may have done, and the key is taken out of every text before anyone else sees it.
Foreign exceptions are not chained, because they carry the request with its key.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import openai

from bridgekd.config import Teacher
from bridgekd.core.calls import payload_of

KEY_MARK = "[key]"
CONNECT_TIMEOUT_S = 10.0

# By the end of these no byte of the request had left, whatever version of httpx openai brings
# along.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# Below warnings these write down headers and addresses, where a key may be.
_LOGGERS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2")
_MAYBE_SERVED = (408, 504, 524)  # a gateway gave up waiting; the model may have answered and billed
_TRY_AGAIN = (409, 425, 429)
_REFUSED = (400, 413, 422, 451)
_OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")


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


def host_of(teacher: Teacher) -> str:
    """The server's name for messages, without what else a URL may carry."""
    return urlsplit(teacher.url).hostname or "The teacher"


class Line:
    """An open client for one teacher; used as an async context."""

    def __init__(self, teacher: Teacher, api_key: str) -> None:
        self._teacher = teacher
        self._secrets = _spellings(api_key)
        self._levels: dict[str, int] = {}
        host = urlsplit(teacher.url).hostname
        # The time of a whole attempt is kept in `ask`; a server that drips bytes would never end
        # the read timeout. Connecting has a shorter one of its own, because it is free to fail.
        timeout = openai.Timeout(None, connect=min(CONNECT_TIMEOUT_S, teacher.timeout_s / 2))
        # A proxy of the environment never stands between this machine and itself.
        http_client = openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            trust_env=host not in ("localhost", "127.0.0.1", "::1"),
        )
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=teacher.url,
            timeout=timeout,
            max_retries=0,
            http_client=http_client,
        )

    async def __aenter__(self) -> "Line":
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    async def ask(self, call: Mapping[str, Any]) -> Outcome:
        """Sends one call once. Raises nothing but asyncio's cancellation."""
        payload = payload_of(call)
        try:
            async with asyncio.timeout(self._teacher.timeout_s):
                response = await self._client.chat.completions.with_raw_response.create(**payload)
            request_id = response.headers.get("x-request-id")
            return Outcome(
                "answered",
                raw=self._clean(response.text),
                request_id=self._clean(request_id) if request_id else None,
            )
        except openai.APIStatusError as exc:
            return self._by_status(exc)
        except openai.APIConnectionError as exc:
            cause = exc.__cause__
            never_sent = type(cause).__name__ in _NEVER_SENT
            reason = self._clean(f"{type(cause).__name__}: {cause}" if cause else str(exc))[:300]
            return Outcome("failed" if never_sent else "unknown", reason=reason)
        except TimeoutError:
            return Outcome("unknown", reason=f"no answer within {self._teacher.timeout_s:g} s")
        except openai.OpenAIError as exc:
            return Outcome("unknown", reason=type(exc).__name__)

    def _by_status(self, exc: openai.APIStatusError) -> Outcome:
        status = exc.status_code
        raw = self._clean(exc.response.text)
        request_id = self._clean(exc.request_id) if exc.request_id else None
        codes = {str(exc.code), str(exc.type)}
        said = " ".join(self._clean(exc.message).split())[:300]
        if status in (401, 403):
            # Servers like to quote the key here, whole or in part: their words are not passed on.
            name = self._teacher.api_key_env
            with_key = f"the key in {name}" if name else "a call without a key"
            return Outcome("down", reason=f"it refused {with_key} ({status})")
        if status == 402 or codes & set(_OUT_OF_MONEY):
            return Outcome("down", reason=f"the quota or credit is used up ({said})")
        if status == 404:
            model = self._teacher.model
            return Outcome("down", reason=f"no model {model!r} at this address ({said})")
        if status == 400 and _is_about_settings(exc):
            return Outcome("down", reason=f"it does not take a setting of the recipe ({said})")
        if status in _REFUSED:
            return Outcome("refused", raw=raw, request_id=request_id, reason=said)
        if status in _MAYBE_SERVED:
            return Outcome("unknown", reason=said)
        if status in _TRY_AGAIN or status >= 500:
            wait = _seconds(exc.response.headers.get("retry-after"))
            return Outcome(
                "failed", reason=said, throttled=status in (429, 503), retry_after_s=wait
            )
        return Outcome("down", reason=f"it does not speak chat completions ({said})")

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, KEY_MARK)
        return text


def _spellings(api_key: str) -> tuple[str, ...]:
    """The key as JSON may spell it. A short word is no secret and may be part of an answer."""
    return (api_key, api_key.replace("/", "\\/")) if len(api_key) >= 8 else ()


def _is_about_settings(exc: openai.APIStatusError) -> bool:
    """A 400 that every request of this recipe would get, so that no row should be spent on it."""
    if exc.code in ("unsupported_parameter", "unsupported_value", "model_not_found"):
        return True
    return exc.param in ("model", "temperature", "max_tokens")


def _seconds(header: str | None) -> float | None:
    """A Retry-After in seconds; its other form, a date, is left to the backoff."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
