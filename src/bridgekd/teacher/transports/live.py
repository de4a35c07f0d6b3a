"""`live`: one HTTP request for one answer."""

from typing import TYPE_CHECKING

from bridgekd.api_client.openai_client import ApiClient
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.request_key import get_payload
from bridgekd.teacher.pending_request import PendingRequest
from bridgekd.teacher.transport import TeacherConnection, Transport, TransportContext

if TYPE_CHECKING:
    import openai


class LiveConnection(TeacherConnection):
    """Chat completions, as many at once as teacher.max_concurrent_requests says."""

    def __init__(self, context: TransportContext) -> None:
        super().__init__(context)
        teacher = context.resolved.teacher
        self._timeout_s = teacher.timeout_s
        self._wire = ApiClient(teacher, context.api_key)

    async def close(self) -> None:
        await self._wire.aclose()

    async def send(self, order: PendingRequest) -> RequestOutcome:
        payload, clean = get_payload(order.body), self._wire.redact
        model, messages = payload.pop("model"), payload.pop("messages")

        async def request(client: "openai.AsyncOpenAI") -> RequestOutcome:
            response = await client.chat.completions.with_raw_response.create(
                model=model, messages=messages, extra_body=payload
            )
            name = response.headers.get("x-request-id") or response.headers.get("request-id")
            return RequestOutcome("answered", clean(response.text), clean(name) if name else None)

        return await self._wire.send(request, self._timeout_s)


TRANSPORT = Transport(
    name="live",
    title="Live requests",
    summary="Sends every request at once and waits for its answer.",
    open=LiveConnection,
)
