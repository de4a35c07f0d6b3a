"""Requests about files and batches: tried again while that is of use, never so that one is made
twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from bridgekd.config import Teacher
from bridgekd.core.pace import backoff
from bridgekd.errors import TeacherDown
from bridgekd.teacher.batch_files import METADATA, URL, BatchState, read_batch, read_json
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.wire import CONNECT_TIMEOUT_S, Wire

if TYPE_CHECKING:
    import openai

LOOKS = 6  # for a batch that may have been made unseen: a list may lag behind
LONGEST_WAIT_S = 60.0
LONGEST_OUTAGE_STEP_S = 600.0  # between looks at a batch whose server cannot be reached
LONGEST_RETRY_AFTER_S = 300.0  # who asks for more is down for now
SLOWEST_BYTES_PER_S = 100_000  # of an upload
LONGEST_DOWNLOAD_S = 3600.0  # while bytes keep coming
GO_ON = "The batch goes on without us: run the same command again to take its answers."
NO_BATCHES = Outcome("down", reason="it has no files and batches at this address")
NO_BATCH = Outcome("unknown", reason="it answered with no batch")
T = TypeVar("T")


class BatchWire(Wire):
    """The files and batches of one teacher. None where the server knows none of that name."""

    def __init__(self, teacher: Teacher, api_key: str, poll_s: float) -> None:
        super().__init__(teacher, api_key)
        self._poll_s = poll_s

    async def patiently(
        self,
        ask: Callable[[], Awaitable[T | Outcome]],
        *,
        final: Collection[str] = ("down", "refused"),
        base_s: float = 1.0,
        longest_s: float = LONGEST_WAIT_S,
    ) -> T | Outcome:
        """What a request gives; tried again unless its outcome is final."""
        dice = random.Random(id(self))  # only for waiting times
        n_failed = 0
        while True:
            result = await ask()
            if not isinstance(result, Outcome) or result.kind in final:
                return result
            n_failed += 1
            rest_s = result.retry_after_s or 0.0
            if n_failed >= self.teacher.max_tries or rest_s > LONGEST_RETRY_AFTER_S:
                return result
            wait_s = backoff(n_failed, min(base_s, self._poll_s), longest_s, dice)
            await asyncio.sleep(rest_s + wait_s)

    async def upload(self, content: bytes) -> str | Outcome:
        """The id of a file of calls."""

        async def request(client: "openai.AsyncOpenAI") -> str | Outcome:
            file = ("batch.jsonl", content)
            files = client.files.with_raw_response
            text = (await files.create(file=file, purpose="batch")).text
            file_id = read_json(text).get("id")
            return str(file_id) if file_id else NO_BATCHES

        timeout_s = self.teacher.timeout_s + len(content) / SLOWEST_BYTES_PER_S
        return await self._ask(request, timeout_s) or NO_BATCHES

    async def make(self, token: str, file_id: str) -> BatchState | Outcome:
        """Makes the batch. It is asked for again only where the server said that it failed and
        lists no such batch; unknown where nobody knows whether it was made.
        """

        async def attempt() -> BatchState | Outcome:
            made = await self._create(token, file_id)
            if isinstance(made, BatchState) or made.kind in ("down", "refused"):
                return made
            looks = LOOKS if made.kind == "unknown" else 1
            return await self.look_for(token, looks=looks) or made

        return await self.patiently(attempt, final=("down", "refused", "unknown"))

    async def look_for(self, token: str, *, looks: int = LOOKS) -> BatchState | None:
        """The batch with our token; None where the server lists it at none of the looks."""
        for look in range(looks):
            if look:
                await asyncio.sleep(min(self._poll_s, LONGEST_WAIT_S))
            found = await self.patiently(lambda: self._find(token))
            if isinstance(found, Outcome):
                raise TeacherDown(f"{self.host} does not list its batches: {found.reason}. {GO_ON}")
            if found is not None:
                return found
        return None

    async def look_at(self, name: str) -> BatchState | None:
        """The batch as it stands now; patient, because it goes on without us meanwhile."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | Outcome:
            response = await client.batches.with_raw_response.retrieve(name)
            return read_batch(read_json(response.text)) or NO_BATCH

        batch = await self.patiently(
            lambda: self._ask(request), base_s=self._poll_s, longest_s=LONGEST_OUTAGE_STEP_S
        )
        if isinstance(batch, Outcome):
            raise TeacherDown(f"{self.host} says nothing of batch {name}: {batch.reason}. {GO_ON}")
        return batch

    async def download(self, file_id: str) -> str | None:
        """The text of a file."""
        silence_s = self.teacher.timeout_s

        async def request(client: "openai.AsyncOpenAI") -> str:
            import openai

            timeout = openai.Timeout(None, connect=CONNECT_TIMEOUT_S, read=silence_s)
            response = await client.files.with_raw_response.content(file_id, timeout=timeout)
            return response.content.decode("utf-8", "replace")

        longest_s = max(LONGEST_DOWNLOAD_S, silence_s)
        text = await self.patiently(lambda: self._ask(request, longest_s))
        if isinstance(text, Outcome):
            raise TeacherDown(f"{self.host} gave no {file_id}: {text.reason}. {GO_ON}")
        return text

    async def _create(self, token: str, file_id: str) -> BatchState | Outcome:
        async def request(client: "openai.AsyncOpenAI") -> BatchState | Outcome:
            response = await client.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=URL,
                completion_window="24h",
                metadata={METADATA: token},
            )
            return read_batch(read_json(response.text)) or NO_BATCH

        return await self._ask(request) or NO_BATCHES

    async def _find(self, token: str) -> BatchState | Outcome | None:
        """The batch with our token, if the server lists it."""

        async def request(client: "openai.AsyncOpenAI") -> BatchState | Outcome | None:
            after: dict[str, object] = {}
            while True:
                batches = client.batches.with_raw_response
                page = read_json((await batches.list(limit=100, extra_query=after)).text)
                rows = page.get("data")
                if not isinstance(rows, list):
                    return Outcome("unknown", reason="it answered with no list")
                found = [batch for row in rows if (batch := read_batch(row)) is not None]
                for batch in found:
                    if batch.token == token:
                        return batch
                if not page.get("has_more") or not found or after == {"after": found[-1].id}:
                    return None
                after = {"after": found[-1].id}

        return await self._ask(request)

    async def _ask(
        self,
        request: "Callable[[openai.AsyncOpenAI], Awaitable[T | Outcome]]",
        timeout_s: float | None = None,
    ) -> T | Outcome | None:
        """What one request gives; None where the server knows nothing of that name (404)."""
        result = await self.send(request, timeout_s or self.teacher.timeout_s)
        return None if isinstance(result, Outcome) and result.status == 404 else result
