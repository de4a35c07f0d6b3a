"""One chat completion over HTTP."""

import openai

from bridgekd.config import Teacher
from bridgekd.core.calls import TeacherRequest, payload_of
from bridgekd.core.replies import Bill
from bridgekd.ledger.attempts import OpenAttempt
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.orders import Order
from bridgekd.teacher.wire import Wire


class ChatLine(Wire):
    """One request a call, as many at once as the recipe's concurrency."""

    outlives = False
    resting = False

    def __init__(self, teacher: Teacher, api_key: str) -> None:
        super().__init__(teacher, api_key)
        self.width = teacher.concurrency
        self.adopted: dict[str, OpenAttempt] = {}

    def most(self, request: TeacherRequest, bound: Bill) -> Bill:
        """The bound: nobody knows an answer beforehand."""
        return bound

    async def stop(self) -> set[str]:
        """None: what is asked for is sent."""
        return set()

    async def ask(self, order: Order) -> Outcome:
        """Sends one call once."""
        payload = payload_of(order.call)
        model, messages = payload.pop("model"), payload.pop("messages")

        async def request(client: openai.AsyncOpenAI) -> Outcome:
            response = await client.chat.completions.with_raw_response.create(
                model=model, messages=messages, extra_body=payload
            )
            name = response.headers.get("x-request-id") or response.headers.get("request-id")
            return Outcome(
                "answered",
                raw=self.clean(response.text),
                request_id=self.clean(name) if name else None,
            )

        return await self.send(request, self.teacher.timeout_s)
