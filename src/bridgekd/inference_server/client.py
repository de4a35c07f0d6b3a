"""Sends many requests to one server: a limited number at once, with retries.

The client, its errors and its care for the key are those of the teacher, without the money.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai

from bridgekd import lm
from bridgekd.api_client.chat_completion import parse_json_object
from bridgekd.api_client.openai_client import ApiClient, compute_backoff_s
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.run_async import run_async
from bridgekd.errors import InputError, ServerUnavailableError
from bridgekd.recipe import AssistantServerOptions, TeacherOptions

PromptFormat = Literal["tokens", "text", "chat"]
JsonBody = Mapping[str, Any]
T = TypeVar("T")
BACKOFF_S, MAX_BACKOFF_S = 0.25, 10.0
MAX_WAIT_S = 60.0  # for any value of Retry-After
LOADING_STATUSES = (502, 503, 504)
RESUME_HINT = "Finished texts are saved. Run the same command again to resume."


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on a server; the counterpart of `lm.LocalModel`.

    endpoint: its name and URL. prompt_format: how the server accepts a prompt: as tokens, as text
    that it tokenizes to the same tokens, or as messages for its own chat template. workdir: the
    stage's folder for unfinished work. get_exit_reason: returns why a server that was started here
    has ended; None while it runs.
    """

    endpoint: TeacherOptions
    key: str = field(repr=False)
    options: AssistantServerOptions
    tokenizer: "lm.RemoteTokenizer"
    workdir: Path
    prompt_format: PromptFormat = "tokens"
    get_exit_reason: Callable[[], str | None] = lambda: None

    @property
    def address(self) -> str:
        """The server's name in a message."""
        return f"The assistant's server at {self.endpoint.effective_base_url}"


def list_models(endpoint: TeacherOptions, key: str, timeout_s: float) -> list[str] | RequestOutcome:
    """Return the models that GET /v1/models lists, or how the request failed."""

    async def work(client: ApiClient) -> list[str] | RequestOutcome:
        async def request(sender: openai.AsyncOpenAI) -> list[str]:
            response = await sender.models.with_raw_response.list()
            rows = parse_json_object(client.redact(response.text)).get("data")
            return [str(row.get("id")) for row in rows or () if isinstance(row, dict)]

        return await client.send(request, timeout_s)

    return _run_with_client(endpoint, key, work)


def is_ready(endpoint: TeacherOptions, key: str, timeout_s: float) -> bool:
    """Return whether GET /v1/models answers.

    An error counts as an answer: a server may have no list. But 503 means that it loads its model.
    """
    result = list_models(endpoint, key, timeout_s)
    if isinstance(result, RequestOutcome):
        return result.status is not None and result.status not in LOADING_STATUSES
    return True


def send_one(server: ServedModel, body: JsonBody) -> JsonBody | RequestOutcome:
    """Return one answer, or an outcome that no retry would change.

    Raises ServerUnavailableError if no attempt gives either.
    """
    return _run_with_client(
        server.endpoint, server.key, lambda client: _send_with_retries(client, server, body)
    )


def send_all(
    server: ServedModel,
    n: int,
    build_body: Callable[[int], JsonBody],
    on_answer: Callable[[int, JsonBody], None],
    *,
    label: str,
) -> None:
    """Send the requests `build_body(0)` to `build_body(n - 1)`; pass each answer to `on_answer`.

    The answers come in order of arrival. Raises ServerUnavailableError if the server stops
    answering, and InputError if it refuses a request; `on_answer` has received all earlier answers.
    """
    remaining = iter(range(n))

    async def work(client: ApiClient) -> None:
        for index in remaining:
            answer = await _send_with_retries(client, server, build_body(index))
            if isinstance(answer, RequestOutcome):
                raise _build_error(server, answer, f"{label}, request {index + 1} of {n}")
            on_answer(index, answer)

    async def run(client: ApiClient) -> None:
        n_tasks = min(n, server.options.max_concurrent_requests)
        tasks = [asyncio.create_task(work(client)) for _ in range(n_tasks)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    _run_with_client(server.endpoint, server.key, run)


def _run_with_client(
    endpoint: TeacherOptions, key: str, work: Callable[[ApiClient], Coroutine[Any, Any, T]]
) -> T:
    async def run() -> T:
        async with aclosing(ApiClient(endpoint, key)) as client:
            return await work(client)

    return run_async(run())


async def _send_with_retries(
    client: ApiClient, server: ServedModel, body: JsonBody
) -> JsonBody | RequestOutcome:
    """Return the body of an answer, or an outcome that no retry would change."""
    rng, reason, max_attempts = random.Random(), "", server.options.max_attempts
    for n_attempts in range(1, max_attempts + 1):
        answer = await client.send(_make_request(body, client.redact), server.options.timeout_s)
        if not isinstance(answer, RequestOutcome) or answer.kind in ("refused", "rejected", "down"):
            return answer
        reason = answer.reason
        if server.get_exit_reason() is not None:
            break
        if n_attempts < max_attempts:
            wait_s = compute_backoff_s(n_attempts, BACKOFF_S, MAX_BACKOFF_S, rng)
            await asyncio.sleep(max(wait_s, min(answer.retry_after_s or 0, MAX_WAIT_S)))
    reason = await _wait_for_exit_reason(server) or f"{reason} ({max_attempts} attempts)"
    raise ServerUnavailableError(f"{server.address} stopped answering: {reason}. {RESUME_HINT}")


async def _wait_for_exit_reason(server: ServedModel) -> str | None:
    """Return why a server that was started here ended.

    Its connections break a moment before its end is known.
    """
    for _ in range(10 if server.options.command is not None else 0):
        if (reason := server.get_exit_reason()) is not None:
            return reason
        await asyncio.sleep(0.1)
    return None


def _make_request(
    body: JsonBody, redact: Callable[[str], str]
) -> Callable[[openai.AsyncOpenAI], Awaitable[JsonBody | RequestOutcome]]:
    async def request(client: openai.AsyncOpenAI) -> JsonBody | RequestOutcome:
        extra = dict(body)
        model = extra.pop("model")
        if "messages" in extra:
            chat, messages = client.chat.completions.with_raw_response, extra.pop("messages")
            text = (await chat.create(model=model, messages=messages, extra_body=extra)).text
        else:
            plain, prompt = client.completions.with_raw_response, extra.pop("prompt")
            text = (await plain.create(model=model, prompt=prompt, extra_body=extra)).text
        answer = parse_json_object(redact(text))
        if isinstance(answer.get("choices"), list) and answer["choices"]:
            return answer
        return RequestOutcome("failed", reason="an answer without choices")

    return request


def _build_error(
    server: ServedModel, outcome: RequestOutcome, where: str
) -> InputError | ServerUnavailableError:
    if outcome.kind in ("rejected", "down"):
        return ServerUnavailableError(f"{server.address} failed: {outcome.reason}. {RESUME_HINT}")
    return InputError(
        f"{server.address} refuses a prompt ({where}: {outcome.reason}). Start it with a larger "
        f"context length, or lower assistant.max_new_tokens."
    )
