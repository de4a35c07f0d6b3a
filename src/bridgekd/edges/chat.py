"""One chat completion over HTTP."""

from collections.abc import Mapping
from typing import Any

import openai

from bridgekd.core.calls import payload_of
from bridgekd.edges.lines import Outcome
from bridgekd.edges.wire import Wire


class ChatLine(Wire):
    """One request a call, as many at once as the recipe's concurrency."""

    @property
    def width(self) -> int:
        """The most calls that may be in flight."""
        return self.teacher.concurrency

    @property
    def adopted(self) -> Mapping[str, int]:
        """None: a call dies with its process."""
        return {}

    def unsent(self) -> set[str]:
        """None: what is asked for is sent."""
        return set()

    async def ask(self, key: str, call: Mapping[str, Any]) -> Outcome:
        """Sends one call once."""
        payload = payload_of(call)
        model, messages = payload.pop("model"), payload.pop("messages")

        async def request(client: openai.AsyncOpenAI) -> Outcome:
            response = await client.chat.completions.with_raw_response.create(
                model=model, messages=messages, extra_body=payload
            )
            name = response.headers.get("x-request-id")
            return Outcome(
                "answered",
                raw=self.clean(response.text),
                request_id=self.clean(name) if name else None,
            )

        return await self.send(request, self.teacher.timeout_s)
