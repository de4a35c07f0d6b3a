"""Requests about files and batches: tried again while that is of use, never so that one is made
twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from bridgekd.api_client.openai_client import CONNECT_TIMEOUT_S, ApiClient
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.rate_limit import compute_backoff_s
from bridgekd.errors import TeacherUnavailableError
from bridgekd.recipe import TeacherOptions
from bridgekd.teacher.batch_format import (
    ENDPOINT,
    METADATA,
    BatchState,
    parse_batch,
    parse_json_object,
)

if TYPE_CHECKING:
    import openai

N_LOOKUPS = 6  # for a batch that may have been made unseen: a list may lag behind
MAX_WAIT_S = 60.0
MAX_OUTAGE_WAIT_S = 600.0  # between looks at a batch whose server cannot be reached
MAX_RETRY_AFTER_S = 300.0  # who asks for more is down for now
MIN_BYTES_PER_S = 100_000  # of an upload
MAX_DOWNLOAD_S = 3600.0  # while bytes keep coming
BATCH_RESUME_HINT = "The batch goes on without us: run the same command again to take its answers."
NO_BATCH_API_TEXT = RequestOutcome("down", reason="it has no files and batches at this address")
NO_BATCH = RequestOutcome("unknown", reason="it answered with no batch")
T = TypeVar("T")


class BatchClient(ApiClient):
    """The files and batches of one teacher. None where the server knows none of that name."""

    def __init__(self, teacher: TeacherOptions, api_key: str, poll_s: float) -> None:
        super().__init__(teacher, api_key)
        self._poll_s = poll_s

    async def retry(
        self,
        ask: Callable[[], Awaitable[T | RequestOutcome]],
        *,
        final: Collection[str] = ("down", "refused"),
        base_s: float = 1.0,
        longest_s: float = MAX_WAIT_S,
    ) -> T | RequestOutcome:
        """What a request gives; tried again unless its outcome is final."""
        dice = random.Random(id(self))  # only for waiting times
        n_failed = 0
        while True:
            result = await ask()
            if not isinstance(result, RequestOutcome) or result.kind in final:
                return result
            n_failed += 1
            rest_s = result.retry_after_s or 0.0
            if n_failed >= self.teacher.max_attempts or rest_s > MAX_RETRY_AFTER_S:
                return result
            wait_s = compute_backoff_s(n_failed, min(base_s, self._poll_s), longest_s, dice)
            await asyncio.sleep(rest_s + wait_s)

    async def upload(self, content: bytes) -> str | RequestOutcome:
        """The id of a file of calls."""

        async def request(client: "openai.AsyncOpenAI") -> str | RequestOutcome:
            file = ("batch.jsonl", content)
            files = client.files.with_raw_response
            text = (await files.create(file=file, purpose="batch")).text
            file_id = parse_json_object(text).get("id")
            return str(file_id) if file_id else NO_BATCH_API_TEXT

        timeout_s = self.teacher.timeout_s + len(content) / MIN_BYTES_PER_S
        return await self._ask(request, timeout_s) or NO_BATCH_API_TEXT

    async def create_once(self, token: str, file_id: str) -> BatchState | RequestOutcome:
        """Makes the batch. It is asked for again only where the server said that it failed and
        lists no such batch; unknown where nobody knows whether it was made.
        """

        async def attempt() -> BatchState | RequestOutcome:
            made = await self._create(token, file_id)
            if isinstance(made, BatchState) or made.kind in ("down", "refused"):
                return made
            looks = N_LOOKUPS if made.kind == "unknown" else 1
            return await self.wait_for_token(token, looks=looks) or made

        return await self.retry(attempt, final=("down", "refused", "unknown"))

    async def wait_for_token(self, token: str, *, looks: int = N_LOOKUPS) -> BatchState | None:
        """The batch with our token; None where the server lists it at none of the looks."""
        for look in range(looks):
            if look:
                await asyncio.sleep(min(self._poll_s, MAX_WAIT_S))
            found = await self.retry(lambda: self._find(token))
            if isinstance(found, RequestOutcome):
                raise TeacherUnavailableError(
                    f"{self.host} does not list its batches: {found.reason}. {BATCH_RESUME_HINT}"
                )
            if found is not None:
                return found
        return None

    async def look_at(self, name: str) -> BatchState | None:
        """The batch as it stands now; patient, because it goes on without us meanwhile."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome:
            response = await client.batches.with_raw_response.retrieve(name)
            return parse_batch(parse_json_object(response.text)) or NO_BATCH

        batch = await self.retry(
            lambda: self._ask(request), base_s=self._poll_s, longest_s=MAX_OUTAGE_WAIT_S
        )
        if isinstance(batch, RequestOutcome):
            raise TeacherUnavailableError(
                f"{self.host} says nothing of batch {name}: {batch.reason}. {BATCH_RESUME_HINT}"
            )
        return batch

    async def download(self, file_id: str) -> str | None:
        """The text of a file."""
        silence_s = self.teacher.timeout_s

        async def request(client: "openai.AsyncOpenAI") -> str:
            import openai

            timeout = openai.Timeout(None, connect=CONNECT_TIMEOUT_S, read=silence_s)
            response = await client.files.with_raw_response.content(file_id, timeout=timeout)
            return response.content.decode("utf-8", "replace")

        longest_s = max(MAX_DOWNLOAD_S, silence_s)
        text = await self.retry(lambda: self._ask(request, longest_s))
        if isinstance(text, RequestOutcome):
            raise TeacherUnavailableError(
                f"{self.host} gave no {file_id}: {text.reason}. {BATCH_RESUME_HINT}"
            )
        return text

    async def _create(self, token: str, file_id: str) -> BatchState | RequestOutcome:
        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome:
            response = await client.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={METADATA: token},
            )
            return parse_batch(parse_json_object(response.text)) or NO_BATCH

        return await self._ask(request) or NO_BATCH_API_TEXT

    async def _find(self, token: str) -> BatchState | RequestOutcome | None:
        """The batch with our token, if the server lists it."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | RequestOutcome | None:
            after: dict[str, object] = {}
            while True:
                batches = client.batches.with_raw_response
                page = parse_json_object((await batches.list(limit=100, extra_query=after)).text)
                rows = page.get("data")
                if not isinstance(rows, list):
                    return RequestOutcome("unknown", reason="it answered with no list")
                found = [batch for row in rows if (batch := parse_batch(row)) is not None]
                for batch in found:
                    if batch.token == token:
                        return batch
                if not page.get("has_more") or not found or after == {"after": found[-1].id}:
                    return None
                after = {"after": found[-1].id}

        return await self._ask(request)

    async def _ask(
        self,
        request: "Callable[[openai.AsyncOpenAI], Awaitable[T | RequestOutcome]]",
        timeout_s: float | None = None,
    ) -> T | RequestOutcome | None:
        """What one request gives; None where the server knows nothing of that name (404)."""
        result = await self.send(request, timeout_s or self.teacher.timeout_s)
        return None if isinstance(result, RequestOutcome) and result.status == 404 else result
