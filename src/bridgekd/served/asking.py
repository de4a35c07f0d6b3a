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
from bridgekd.config import AssistantServer, Teacher
from bridgekd.core.pace import backoff
from bridgekd.core.replies import read_json
from bridgekd.errors import BadInput, ServerDown
from bridgekd.teacher.lines import Outcome
from bridgekd.teacher.loops import run_to_end
from bridgekd.teacher.wire import Wire

Form = Literal["tokens", "text", "chat"]
Body = dict[str, Any]
BACKOFF_S, LONGEST_S = 0.25, 10.0
LONGEST_WAIT_S = 60.0  # whatever Retry-After says
LOADING = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class Server:
    """A model that is asked over HTTP, where it is a LocalModel in process.

    `form` is how it takes a prompt: as tokens, as text that it reads as the same tokens, or as
    messages for its own chat template. `room` is the stage's folder for what is not finished yet.
    `gone` says why a server that was started here is no more; None while it runs.
    """

    address: Teacher  # its name and url; nothing here is paid for
    key: str = field(repr=False)
    terms: AssistantServer
    tokens: "lm.Tokens"
    room: Path
    form: Form = "tokens"
    gone: Callable[[], str | None] = lambda: None


def names(address: Teacher, key: str, timeout_s: float) -> list[str] | Outcome:
    """What GET /v1/models lists, or how it failed."""

    async def request(client: openai.AsyncOpenAI) -> list[str]:
        response = await client.models.with_raw_response.list()
        found = read_json(response.text)
        rows = found.get("data") if isinstance(found, dict) else None
        return [str(row.get("id")) for row in rows or () if isinstance(row, dict)]

    async def ask() -> list[str] | Outcome:
        async with aclosing(Wire(address, key)) as wire:
            return await wire.send(request, timeout_s)

    return run_to_end(ask())


def is_up(address: Teacher, key: str, timeout_s: float) -> bool:
    """Whether GET /v1/models answers, be it that it has no list: 503 is a server that still loads
    its model.
    """

    async def request(client: openai.AsyncOpenAI) -> bool:
        try:
            await client.models.with_raw_response.list()
        except openai.APIStatusError as exc:
            return exc.status_code not in LOADING
        return True

    async def ask() -> bool:
        async with aclosing(Wire(address, key)) as wire:
            return await wire.send(request, timeout_s) is True

    return run_to_end(ask())


def ask_once(server: Server, body: Body) -> Body | Outcome:
    """One answer, or the refusal; raises ServerDown where there is neither after every try."""

    async def ask() -> Body | Outcome:
        async with aclosing(Wire(server.address, server.key)) as wire:
            return await _answer(wire, server, body)

    return run_to_end(ask())


def ask_all(
    server: Server,
    n: int,
    body_of: Callable[[int], Body],
    keep: Callable[[int, Body], None],
    *,
    what: str,
) -> None:
    """Hands the answer to each of the requests `body_of(0)` to `body_of(n - 1)` to `keep`, in the
    order in which they come.

    Raises ServerDown if the server goes away, BadInput if it refuses a request; what came before
    was kept.
    """
    run_to_end(_ask_all(server, n, body_of, keep, what))


async def _ask_all(
    server: Server,
    n: int,
    body_of: Callable[[int], Body],
    keep: Callable[[int, Body], None],
    what: str,
) -> None:
    todo = iter(range(n))
    async with aclosing(Wire(server.address, server.key)) as wire:

        async def work() -> None:
            for place in todo:
                answer = await _answer(wire, server, body_of(place))
                if isinstance(answer, Outcome):
                    raise _refused(server, answer, f"{what}, request {place + 1} of {n}")
                keep(place, answer)

        tasks = [asyncio.create_task(work()) for _ in range(min(n, server.terms.concurrency))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(wire: Wire, server: Server, body: Body) -> Body | Outcome:
    """The body of an answer, or an Outcome that no further try would change."""
    dice, reason = random.Random(), ""
    for n_tries in range(1, server.terms.max_tries + 1):
        answer = await wire.send(_request(body), server.terms.timeout_s)
        if not isinstance(answer, Outcome):
            return answer
        if answer.kind in ("refused", "down"):
            return answer
        reason = answer.reason
        if server.gone() is not None:
            break
        if n_tries < server.terms.max_tries:
            wait = backoff(n_tries, BACKOFF_S, LONGEST_S, dice)
            await asyncio.sleep(max(wait, min(answer.retry_after_s or 0, LONGEST_WAIT_S)))
    why = await _why_gone(server) or f"{reason} ({server.terms.max_tries} tries)"
    raise ServerDown(
        f"the assistant's server at {server.address.url} went away: {why}; what it wrote is kept, "
        "and the same command goes on"
    )


async def _why_gone(server: Server) -> str | None:
    """Why a server that was started here ended; a connection breaks a moment before its end is
    known.
    """
    for _ in range(10 if server.terms.command is not None else 0):
        if (why := server.gone()) is not None:
            return why
        await asyncio.sleep(0.1)
    return None


def _request(body: Body) -> Callable[[openai.AsyncOpenAI], Awaitable[Body | Outcome]]:
    async def request(client: openai.AsyncOpenAI) -> Body | Outcome:
        extra = dict(body)
        model: str = extra.pop("model")
        if "messages" in extra:
            chat = client.chat.completions.with_raw_response
            messages = extra.pop("messages")
            text = (await chat.create(model=model, messages=messages, extra_body=extra)).text
        else:
            plain, prompt = client.completions.with_raw_response, extra.pop("prompt")
            text = (await plain.create(model=model, prompt=prompt, extra_body=extra)).text
        found = read_json(text)
        if isinstance(found, dict) and isinstance(found.get("choices"), list) and found["choices"]:
            return found
        return Outcome("failed", reason="an answer without choices")

    return request


def _refused(server: Server, answer: Outcome, where: str) -> BadInput | ServerDown:
    if answer.kind == "down":
        return ServerDown(
            f"the assistant's server at {server.address.url} cannot go on: {answer.reason}; "
            "what it wrote is kept, and the same command goes on"
        )
    return BadInput(
        f"the assistant's server refuses a prompt ({where}: {answer.reason}); start it for longer "
        "texts, or lower assistant.max_new_tokens"
    )
