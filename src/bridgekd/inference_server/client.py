"""Many requests to one server: so many at once, tried again where that helps, kept as they come.

The wire, its errors and its care for the key are those of the way to the teacher, which know
nothing of money.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import openai

from bridgekd import lm
from bridgekd.api_client.chat_completion import parse_json
from bridgekd.api_client.openai_client import ApiClient
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.rate_limit import compute_backoff_s
from bridgekd.api_client.run_async import run_async
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.recipe import AssistantServerOptions, TeacherOptions

PromptFormat = Literal["tokens", "text", "chat"]
JsonBody = dict[str, Any]
SERVER_BACKOFF_S, MAX_BACKOFF_S = 0.25, 10.0
MAX_WAIT_S = 60.0  # whatever Retry-After says
LOADING_STATUSES = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is asked over HTTP, where it is a LocalModel in process.

    `form` is how it takes a prompt: as tokens, as text that it reads as the same tokens, or as
    messages for its own chat template. `room` is the stage's folder for what is not finished yet.
    `gone` says why a server that was started here is no more; None while it runs.
    """

    endpoint: TeacherOptions  # its name and url; nothing here is paid for
    key: str = field(repr=False)
    options: AssistantServerOptions
    tokenizer: "lm.RemoteTokenizer"
    workdir: Path
    prompt_format: PromptFormat = "tokens"
    get_exit_reason: Callable[[], str | None] = lambda: None


def list_models(address: TeacherOptions, key: str, timeout_s: float) -> list[str] | RequestOutcome:
    """What GET /v1/models lists, or how it failed."""

    async def request(client: openai.AsyncOpenAI) -> list[str]:
        response = await client.models.with_raw_response.list()
        found = parse_json(response.text)
        rows = found.get("data") if isinstance(found, dict) else None
        return [str(row.get("id")) for row in rows or () if isinstance(row, dict)]

    async def ask() -> list[str] | RequestOutcome:
        async with aclosing(ApiClient(address, key)) as wire:
            return await wire.send(request, timeout_s)

    return run_async(ask())


def is_ready(address: TeacherOptions, key: str, timeout_s: float) -> bool:
    """Whether GET /v1/models answers, be it that it has no list: 503 is a server that still loads
    its model.
    """

    async def request(client: openai.AsyncOpenAI) -> bool:
        try:
            await client.models.with_raw_response.list()
        except openai.APIStatusError as exc:
            return exc.status_code not in LOADING_STATUSES
        return True

    async def ask() -> bool:
        async with aclosing(ApiClient(address, key)) as wire:
            return await wire.send(request, timeout_s) is True

    return run_async(ask())


def send_one(server: ServedModel, body: JsonBody) -> JsonBody | RequestOutcome:
    """One answer, or the refusal; raises ServerUnavailableError where there is neither after "
    "every try."""

    async def ask() -> JsonBody | RequestOutcome:
        async with aclosing(ApiClient(server.endpoint, server.key)) as wire:
            return await _send_with_retries(wire, server, body)

    return run_async(ask())


def send_all(
    server: ServedModel,
    n: int,
    body_of: Callable[[int], JsonBody],
    keep: Callable[[int, JsonBody], None],
    *,
    what: str,
) -> None:
    """Hands the answer to each of the requests `body_of(0)` to `body_of(n - 1)` to `keep`, in the
    order in which they come.

    Raises ServerUnavailableError if the server goes away, InputError if it refuses a request; what
    came before was kept.
    """
    run_async(_send_all(server, n, body_of, keep, what))


async def _send_all(
    server: ServedModel,
    n: int,
    body_of: Callable[[int], JsonBody],
    keep: Callable[[int, JsonBody], None],
    what: str,
) -> None:
    todo = iter(range(n))
    async with aclosing(ApiClient(server.endpoint, server.key)) as wire:

        async def work() -> None:
            for place in todo:
                answer = await _send_with_retries(wire, server, body_of(place))
                if isinstance(answer, RequestOutcome):
                    raise _build_error(server, answer, f"{what}, request {place + 1} of {n}")
                keep(place, answer)

        tasks = [
            asyncio.create_task(work())
            for _ in range(min(n, server.options.max_concurrent_requests))
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _send_with_retries(
    wire: ApiClient, server: ServedModel, body: JsonBody
) -> JsonBody | RequestOutcome:
    """The body of an answer, or an Outcome that no further try would change."""
    dice, reason = random.Random(), ""
    for n_tries in range(1, server.options.max_attempts + 1):
        answer = await wire.send(_request(body), server.options.timeout_s)
        if not isinstance(answer, RequestOutcome):
            return answer
        if answer.kind in ("refused", "down"):
            return answer
        reason = answer.reason
        if server.get_exit_reason() is not None:
            break
        if n_tries < server.options.max_attempts:
            wait = compute_backoff_s(n_tries, SERVER_BACKOFF_S, MAX_BACKOFF_S, dice)
            await asyncio.sleep(max(wait, min(answer.retry_after_s or 0, MAX_WAIT_S)))
    why = await _wait_for_exit_reason(server) or f"{reason} ({server.options.max_attempts} tries)"
    raise ServerUnavailableError(
        f"the assistant's server at {server.endpoint.effective_base_url} went away: {why}; what "
        "it wrote is kept, "
        "and the same command goes on"
    )


async def _wait_for_exit_reason(server: ServedModel) -> str | None:
    """Why a server that was started here ended; a connection breaks a moment before its end is
    known.
    """
    for _ in range(10 if server.options.command is not None else 0):
        if (why := server.get_exit_reason()) is not None:
            return why
        await asyncio.sleep(0.1)
    return None


def _request(
    body: JsonBody,
) -> Callable[[openai.AsyncOpenAI], Awaitable[JsonBody | RequestOutcome]]:
    async def request(client: openai.AsyncOpenAI) -> JsonBody | RequestOutcome:
        extra = dict(body)
        model: str = extra.pop("model")
        if "messages" in extra:
            chat = client.chat.completions.with_raw_response
            messages = extra.pop("messages")
            text = (await chat.create(model=model, messages=messages, extra_body=extra)).text
        else:
            plain, prompt = client.completions.with_raw_response, extra.pop("prompt")
            text = (await plain.create(model=model, prompt=prompt, extra_body=extra)).text
        found = parse_json(text)
        if isinstance(found, dict) and isinstance(found.get("choices"), list) and found["choices"]:
            return found
        return RequestOutcome("failed", reason="an answer without choices")

    return request


def _build_error(
    server: ServedModel, answer: RequestOutcome, where: str
) -> InputError | ServerUnavailableError:
    if answer.kind == "down":
        return ServerUnavailableError(
            f"the assistant's server at {server.endpoint.effective_base_url} cannot go on: "
            f"{answer.reason}; "
            "what it wrote is kept, and the same command goes on"
        )
    return InputError(
        f"the assistant's server refuses a prompt ({where}: {answer.reason}); start it for longer "
        "texts, or lower assistant.max_new_tokens"
    )
