"""`live`: one HTTP request for one answer."""

from typing import TYPE_CHECKING

from bridgekd.core.calls import payload_of
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.orders import Order
from bridgekd.teacher.transport import TeacherConnection, Transport, TransportContext
from bridgekd.teacher.wire import Wire

if TYPE_CHECKING:
    import openai


class LiveConnection(TeacherConnection):
    """Chat completions, as many at once as teacher.concurrency says."""

    def __init__(self, context: TransportContext) -> None:
        super().__init__(context)
        teacher = context.resolved.teacher
        self._timeout_s = teacher.timeout_s
        self._wire = Wire(teacher, context.api_key)

    async def close(self) -> None:
        await self._wire.aclose()

    async def send(self, order: Order) -> Outcome:
        payload, clean = payload_of(order.call), self._wire.clean
        model, messages = payload.pop("model"), payload.pop("messages")

        async def request(client: "openai.AsyncOpenAI") -> Outcome:
            response = await client.chat.completions.with_raw_response.create(
                model=model, messages=messages, extra_body=payload
            )
            name = response.headers.get("x-request-id") or response.headers.get("request-id")
            return Outcome("answered", clean(response.text), clean(name) if name else None)

        return await self._wire.send(request, self._timeout_s)


TRANSPORT = Transport(
    name="live",
    title="Live requests",
    summary="Sends every request at once and waits for its answer.",
    open=LiveConnection,
)
