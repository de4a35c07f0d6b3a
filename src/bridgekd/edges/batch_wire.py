"""Requests about batches: each tried again while that is of use, none that could make one twice."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import openai
from openai.types import Batch

from bridgekd.core.pace import backoff
from bridgekd.edges.lines import Outcome, host_of
from bridgekd.edges.wire import Wire
from bridgekd.errors import TeacherDown

METADATA = "bridgekd"  # under this name a batch carries our token
LOOKS = 3  # for a batch that may have been made unseen: lists may lag behind
LONGEST_WAIT_S = 60.0
T = TypeVar("T")


class BatchWire(Wire):
    """The files and batches of one teacher."""

    async def patiently(self, ask: Callable[[], Awaitable[T | Outcome]]) -> T | Outcome:
        """What a request about a batch gives; tried again while that is of use."""
        dice = random.Random(id(self))  # only for waiting times
        n_failed = 0
        while True:
            result = await ask()
            if not isinstance(result, Outcome) or result.kind in ("down", "refused"):
                return result
            n_failed += 1
            if n_failed >= self.teacher.max_tries:
                return result
            base_s = min(self.teacher.poll_s, 1.0)
            wait_s = backoff(n_failed, base_s, LONGEST_WAIT_S, dice)
            await asyncio.sleep((result.retry_after_s or 0.0) + wait_s)

    async def upload(self, content: bytes) -> str | Outcome:
        """The id of a file of calls."""

        async def request(client: openai.AsyncOpenAI) -> str:
            made = await client.files.create(file=("batch.jsonl", content), purpose="batch")
            return made.id

        return await self.send(request, self.teacher.timeout_s)

    async def create(self, token: str, file_id: str) -> Batch | Outcome:
        """Makes the batch; where nobody knows whether that went well, looks for it."""

        async def request(client: openai.AsyncOpenAI) -> Batch:
            return await client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={METADATA: token},
            )

        made = await self.send(request, self.teacher.timeout_s)
        if isinstance(made, Outcome) and made.kind == "unknown":
            return await self.look_for(token) or made
        return made

    async def retrieve(self, name: str) -> Batch | Outcome:
        """The batch as it stands now."""

        async def request(client: openai.AsyncOpenAI) -> Batch:
            return await client.batches.retrieve(name)

        return await self.send(request, self.teacher.timeout_s)

    async def find(self, token: str) -> Batch | Outcome | None:
        """The batch with our token, if the server lists it."""

        async def request(client: openai.AsyncOpenAI) -> Batch | None:
            async for batch in client.batches.list(limit=100):
                if (batch.metadata or {}).get(METADATA) == token:
                    return batch
            return None

        return await self.send(request, self.teacher.timeout_s)

    async def download(self, file_id: str) -> str | Outcome:
        """The text of a file."""

        async def request(client: openai.AsyncOpenAI) -> str:
            return self.clean((await client.files.content(file_id)).text)

        return await self.send(request, self.teacher.timeout_s)

    async def look_for(self, token: str) -> Batch | None:
        """The batch with our token; None once it is sure enough that there is none."""
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(min(self.teacher.poll_s, 10.0))
            found = await self.patiently(lambda: self.find(token))
            if isinstance(found, Outcome):
                raise TeacherDown(f"{host_of(self.teacher)} lists no batches: {found.reason}.")
            if isinstance(found, Batch):
                return found
        return None
