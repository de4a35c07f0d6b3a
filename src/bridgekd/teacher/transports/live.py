"""`live`: one HTTP request per answer."""

from typing import TYPE_CHECKING, Any

from bridgekd.api_client.openai_client import ApiClient
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.request_key import get_payload
from bridgekd.teacher.transport import (
    PendingRequest,
    TeacherConnection,
    Transport,
    TransportContext,
)

if TYPE_CHECKING:
    import openai


class LiveConnection(TeacherConnection):
    """Sends chat completions, at most teacher.max_concurrent_requests at a time."""

    def __init__(self, context: TransportContext) -> None:
        super().__init__(context)
        teacher = context.resolved.teacher
        self._timeout_s = teacher.timeout_s
        self._client = ApiClient(teacher, context.api_key)

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, pending: PendingRequest) -> RequestOutcome:
        payload, redact = get_payload(pending.body), self._client.redact
        model: Any = payload.pop("model")
        messages: Any = payload.pop("messages")

        async def request(client: "openai.AsyncOpenAI") -> RequestOutcome:
            response = await client.chat.completions.with_raw_response.create(
                model=model, messages=messages, extra_body=payload
            )
            name = response.headers.get("x-request-id") or response.headers.get("request-id")
            return RequestOutcome("answered", redact(response.text), redact(name) if name else None)

        return await self._client.send(request, self._timeout_s)


TRANSPORT = Transport(
    name="live",
    title="Live requests",
    summary="Sends every request at once and waits for its answer.",
    open=LiveConnection,
)
