"""Requests about files and batches. A retry never creates a second batch."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from bridgekd.api_client.chat_completion import parse_json_object
from bridgekd.api_client.openai_client import (
    CONNECT_TIMEOUT_S,
    MAX_BODY_BYTES,
    ApiClient,
    allow_body_bytes,
    compute_backoff_s,
)
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.errors import TeacherUnavailableError
from bridgekd.recipe import TeacherOptions
from bridgekd.teacher.batch_format import ENDPOINT, METADATA, BatchState, parse_batch

if TYPE_CHECKING:
    import openai

N_LOOKUPS = 6  # for a batch whose creation was not confirmed: the list may lag behind
MAX_WAIT_S = 60.0
MAX_OUTAGE_WAIT_S = 600.0  # between requests for a batch whose server cannot be reached
MAX_RETRY_AFTER_S = 300.0  # a server that asks for more is down for now
MIN_BYTES_PER_S = 100_000  # of an upload
MAX_DOWNLOAD_S = 3600.0  # while bytes keep arriving
# More than any answer has, with log-probabilities; and no more than fits into memory.
MAX_BYTES_PER_TOKEN, MAX_BYTES_PER_REQUEST, MAX_DOWNLOAD_BYTES = 1_000, 64_000, 2_000_000_000
BATCH_RESUME_HINT = "The batch continues. Run the same command again to read its answers."
NO_BATCH_API = RequestOutcome("down", reason="it has no files and batches at this address")
NO_BATCH = RequestOutcome("unknown", reason="the response is not a batch")
T = TypeVar("T")


class BatchClient(ApiClient):
    """The files and batches of one teacher. A method returns None if the server does not know the
    name.
    """

    def __init__(self, teacher: TeacherOptions, api_key: str, poll_s: float) -> None:
        super().__init__(teacher, api_key)
        self._poll_s = poll_s

    async def retry(
        self,
        request: Callable[[], Awaitable[T | RequestOutcome]],
        *,
        final: Collection[str] = ("down", "rejected", "refused", "answered"),
        base_s: float = 1.0,
        max_s: float = MAX_WAIT_S,
    ) -> T | RequestOutcome:
        """Return the result of a request; send it again unless its outcome is final."""
        rng = random.Random(id(self))  # only for waiting times
        n_failed = 0
        while True:
            result = await request()
            if not isinstance(result, RequestOutcome) or result.kind in final:
                return result
            n_failed += 1
            retry_after_s = result.retry_after_s or 0.0
            if n_failed >= self.teacher.max_attempts or retry_after_s > MAX_RETRY_AFTER_S:
                return result
            wait_s = compute_backoff_s(n_failed, min(base_s, self._poll_s), max_s, rng)
            await asyncio.sleep(retry_after_s + wait_s)

    async def upload(self, content: bytes) -> str | RequestOutcome:
        """Upload a file of requests and return its id."""

        async def request(client: "openai.AsyncOpenAI") -> str | RequestOutcome:
            files = client.files.with_raw_response
            response = await files.create(file=("batch.jsonl", content), purpose="batch")
            file_id = parse_json_object(self.redact(response.text)).get("id")
            return str(file_id) if file_id else NO_BATCH_API

        timeout_s = self.teacher.timeout_s + len(content) / MIN_BYTES_PER_S
        return await self._send(request, timeout_s) or NO_BATCH_API

    async def create_once(self, token: str, file_id: str) -> BatchState | RequestOutcome:
        """Create the batch. Send this again only if the server reported a failure and lists no such
        batch. The outcome is unknown if the batch may exist.
        """

        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome:
            response = await client.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={METADATA: token},
            )
            return parse_batch(parse_json_object(self.redact(response.text))) or NO_BATCH

        async def attempt() -> BatchState | RequestOutcome:
            batch = await self._send(request) or NO_BATCH_API
            if isinstance(batch, BatchState) or batch.kind in ("down", "rejected", "refused"):
                return batch
            n_lookups = N_LOOKUPS if batch.kind == "unknown" else 1
            return await self.wait_for_token(token, n_lookups=n_lookups) or batch

        return await self.retry(attempt, final=("down", "rejected", "refused", "unknown"))

    async def wait_for_token(self, token: str, *, n_lookups: int = N_LOOKUPS) -> BatchState | None:
        """Return the batch with our token; None if no lookup lists it."""
        for lookup in range(n_lookups):
            if lookup:
                await asyncio.sleep(min(self._poll_s, MAX_WAIT_S))
            result = await self.retry(lambda: self._find(token))
            if (batch := self._check(result, "does not list its batches")) is not None:
                return batch
        return None

    async def get_batch(self, batch_id: str) -> BatchState | None:
        """Return the current state of a batch. Wait long, because the batch continues meanwhile."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome:
            response = await client.batches.with_raw_response.retrieve(batch_id)
            return parse_batch(parse_json_object(self.redact(response.text))) or NO_BATCH

        result = await self.retry(
            lambda: self._send(request), base_s=self._poll_s, max_s=MAX_OUTAGE_WAIT_S
        )
        return self._check(result, f"does not report the state of batch {batch_id}")

    async def download(self, file_id: str, n_requests: int) -> str | None:
        """Return the text of a file with the results of at most `n_requests` requests."""
        silence_s = self.teacher.timeout_s
        max_bytes = MAX_BYTES_PER_REQUEST + MAX_BYTES_PER_TOKEN * self.teacher.max_tokens
        limit = min(MAX_BODY_BYTES + n_requests * max_bytes, MAX_DOWNLOAD_BYTES)

        async def request(client: "openai.AsyncOpenAI") -> str:
            import openai

            timeout = openai.Timeout(None, connect=CONNECT_TIMEOUT_S, read=silence_s)
            response = await client.files.with_raw_response.content(file_id, timeout=timeout)
            return self.redact(response.content.decode("utf-8", "replace"))

        with allow_body_bytes(limit):
            result = await self.retry(lambda: self._send(request, max(MAX_DOWNLOAD_S, silence_s)))
        return self._check(result, f"did not send {file_id}")

    async def _find(self, token: str) -> BatchState | RequestOutcome | None:
        """Return the batch with our token, if the server lists it."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome | None:
            after: dict[str, object] = {}
            while True:
                response = await client.batches.with_raw_response.list(limit=100, extra_query=after)
                page = parse_json_object(self.redact(response.text))
                rows = page.get("data")
                if not isinstance(rows, list):
                    return RequestOutcome("unknown", reason="the response is not a list")
                batches = [batch for row in rows if (batch := parse_batch(row)) is not None]
                for batch in batches:
                    if batch.token == token:
                        return batch
                if not page.get("has_more") or not batches or after == {"after": batches[-1].id}:
                    return None
                after = {"after": batches[-1].id}

        return await self._send(request)

    async def _send(
        self,
        request: "Callable[[openai.AsyncOpenAI], Awaitable[T | RequestOutcome]]",
        timeout_s: float | None = None,
    ) -> T | RequestOutcome | None:
        """Return the result of one request; None if the server does not know the name (404)."""
        result = await self.send(request, timeout_s or self.teacher.timeout_s)
        return None if isinstance(result, RequestOutcome) and result.status == 404 else result

    def _check(self, result: T | RequestOutcome, problem: str) -> T:
        """Return a result; raise TeacherUnavailableError for an outcome without one."""
        if isinstance(result, RequestOutcome):
            raise TeacherUnavailableError(
                f"{self.host} {problem}: {result.reason}. {BATCH_RESUME_HINT}"
            )
        return result
