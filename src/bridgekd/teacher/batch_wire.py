"""Requests about files and batches: tried again while that is of use, never so that one is made
twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import openai

from bridgekd.core.pace import backoff
from bridgekd.errors import TeacherDown
from bridgekd.teacher.batch_files import METADATA, BatchState, read_batch, read_json
from bridgekd.teacher.lines import Outcome, host_of
from bridgekd.teacher.wire import CONNECT_TIMEOUT_S, Wire

LOOKS = 6  # for a batch that may have been made unseen: a list may lag behind
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0  # who asks for more is down for now
SLOWEST_BYTES_PER_S = 100_000  # of an upload
LONGEST_DOWNLOAD_S = 3600.0  # while bytes keep coming
NO_BATCHES = "it has no files and batches at this address"
GO_ON = "The batch goes on without us: run the same command again to take its answers."
T = TypeVar("T")


class BatchWire(Wire):
    """The files and batches of one teacher."""

    async def patiently(
        self,
        ask: Callable[[], Awaitable[T | Outcome]],
        base_s: float = 1.0,
        longest_s: float = LONGEST_WAIT_S,
    ) -> T | Outcome:
        """What a request about a batch gives; tried again while that is of use."""
        dice = random.Random(id(self))  # only for waiting times
        n_failed = 0
        while True:
            result = await ask()
            if not isinstance(result, Outcome) or result.kind in ("down", "refused"):
                return result
            n_failed += 1
            rest_s = result.retry_after_s or 0.0
            if n_failed >= self.teacher.max_tries or rest_s > LONGEST_RETRY_AFTER_S:
                return result
            base_s = min(base_s, self.teacher.poll_s)
            await asyncio.sleep(rest_s + backoff(n_failed, base_s, longest_s, dice))

    async def upload(self, content: bytes) -> str | Outcome:
        """The id of a file of calls."""

        async def request(client: openai.AsyncOpenAI) -> str | Outcome:
            try:
                response = await client.files.with_raw_response.create(
                    file=("batch.jsonl", content), purpose="batch"
                )
            except openai.NotFoundError:
                return Outcome("down", reason=NO_BATCHES)
            file_id = read_json(response.text).get("id")
            return str(file_id) if file_id else Outcome("down", reason=NO_BATCHES)

        timeout_s = self.teacher.timeout_s + len(content) / SLOWEST_BYTES_PER_S
        return await self.send(request, timeout_s)

    async def make(self, token: str, file_id: str) -> BatchState | Outcome:
        """Makes the batch. It is asked for again only where the server said that it failed and
        lists no such batch; unknown where nobody knows whether it was made.
        """
        dice = random.Random(token)
        n_failed = 0
        while True:
            made = await self.create(token, file_id)
            if isinstance(made, BatchState) or made.kind in ("down", "refused"):
                return made
            found = await self.look_for(token, looks=LOOKS if made.kind == "unknown" else 1)
            if found is not None:
                return found
            n_failed += 1
            rest_s = made.retry_after_s or 0.0
            tired = n_failed >= self.teacher.max_tries or rest_s > LONGEST_RETRY_AFTER_S
            if made.kind == "unknown" or tired:
                return made
            base_s = min(1.0, self.teacher.poll_s)
            await asyncio.sleep(rest_s + backoff(n_failed, base_s, LONGEST_WAIT_S, dice))

    async def create(self, token: str, file_id: str) -> BatchState | Outcome:
        """Asks once for a batch."""

        async def request(client: openai.AsyncOpenAI) -> BatchState | Outcome:
            try:
                response = await client.batches.with_raw_response.create(
                    input_file_id=file_id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={METADATA: token},
                )
            except openai.NotFoundError:
                return Outcome("down", reason=NO_BATCHES)
            batch = read_batch(read_json(response.text))
            return batch or Outcome("unknown", reason="it answered with no batch")

        return await self.send(request, self.teacher.timeout_s)

    async def look_for(self, token: str, *, looks: int = LOOKS) -> BatchState | None:
        """The batch with our token; None where the server lists it at none of the looks."""
        for look in range(looks):
            if look:
                await asyncio.sleep(min(self.teacher.poll_s, LONGEST_WAIT_S))
            found = await self.patiently(lambda: self.find(token))
            if isinstance(found, Outcome):
                host = host_of(self.teacher)
                raise TeacherDown(f"{host} does not list its batches: {found.reason}. {GO_ON}")
            if found is not None:
                return found
        return None

    async def find(self, token: str) -> BatchState | Outcome | None:
        """The batch with our token, if the server lists it."""

        async def request(client: openai.AsyncOpenAI) -> BatchState | Outcome | None:
            after: dict[str, object] = {}
            while True:
                try:
                    response = await client.batches.with_raw_response.list(
                        limit=100, extra_query=after
                    )
                except openai.NotFoundError:
                    return None
                page = read_json(response.text)
                rows = page.get("data")
                if not isinstance(rows, list):
                    return Outcome("unknown", reason="it answered with no list")
                batches = [read_batch(row) for row in rows if isinstance(row, dict)]
                for batch in batches:
                    if batch is not None and batch.token == token:
                        return batch
                last = batches[-1] if batches else None
                if not page.get("has_more") or last is None or after == {"after": last.id}:
                    return None
                after = {"after": last.id}

        return await self.send(request, self.teacher.timeout_s)

    async def retrieve(self, name: str) -> BatchState | Outcome | None:
        """The batch as it stands now; None where the server knows none of this name."""

        async def request(client: openai.AsyncOpenAI) -> BatchState | Outcome | None:
            try:
                response = await client.batches.with_raw_response.retrieve(name)
            except openai.NotFoundError:
                return None
            batch = read_batch(read_json(response.text))
            return batch or Outcome("unknown", reason="it answered with no batch")

        return await self.send(request, self.teacher.timeout_s)

    async def download(self, file_id: str) -> str | Outcome | None:
        """The text of a file; None where the server does not have it."""
        silence_s = self.teacher.timeout_s
        timeout = openai.Timeout(None, connect=CONNECT_TIMEOUT_S, read=silence_s)

        async def request(client: openai.AsyncOpenAI) -> str | None:
            try:
                response = await client.files.with_raw_response.content(file_id, timeout=timeout)
            except openai.NotFoundError:
                return None
            return response.content.decode("utf-8", "replace")

        return await self.send(request, max(LONGEST_DOWNLOAD_S, silence_s))
