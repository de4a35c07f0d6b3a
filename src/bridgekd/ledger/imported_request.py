"""Answers that were paid for elsewhere: as what call they are known here, and what they cost.

The one idea: a recorded request gets the name that a run would give it, so that a run that would
ask the same finds the answer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridgekd.api_client.chat_completion import CompletionBody, RequestCost, compute_request_cost
from bridgekd.api_client.request_key import LOCAL_FIELDS, get_billed_messages, get_max_tokens
from bridgekd.cost.request_cost import (
    compute_max_prompt_tokens,
    compute_reserve_microusd,
    to_microusd_rounded_up,
)
from bridgekd.recipe import RESERVED_FIELDS, Price

_FLOATS = ("temperature", "top_p")
_LIMITS = ("max_tokens", "max_completion_tokens")


def build_request_from_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The call that a run makes of the same request, from the body of a recorded one.

    A run writes its provider (here `openai`, where none is given) and its sample index (0) into
    the call, sampling parameters as floats, stops as a list and fields that a recipe has under
    `teacher.extra` as that; it sends nothing that is null, no `stream`, and no `n`. ValueError says
    what is wrong with a body that no run could send.
    """
    call: dict[str, Any] = {"provider": "openai", "sample_index": 0}
    given = {name: value for name, value in body.items() if value is not None}
    routed = isinstance(given.get("provider"), dict)  # OpenRouter's field of that name
    ours = (RESERVED_FIELDS | set(LOCAL_FIELDS)) - ({"provider"} if routed else set())
    beside = {name: given.pop(name) for name in [*given] if name not in ours}
    if not isinstance(given.get("extra", {}), dict):
        raise ValueError(f"request.extra is {given['extra']!r}; it must be an object")
    if extra := given.pop("extra", {}) | beside:
        given["extra"] = extra
    call |= given
    call.pop("stream", None)
    if call.pop("n", 1) != 1:
        raise ValueError(
            f"n is {body['n']!r}; give each answer a line and a sample_index of its own"
        )
    for name in _FLOATS:
        if isinstance(call.get(name), int):
            call[name] = float(call[name])
    if isinstance(call.get("stop"), str):
        call["stop"] = [call["stop"]]
    check_request(call)
    return call


def check_request(call: Mapping[str, Any]) -> None:
    """ValueError where a call lacks what every call has."""
    for name in ("provider", "model"):
        if not isinstance(call.get(name), str) or not call[name]:
            raise ValueError(f"request.{name} is {call.get(name)!r}; it must be a name")
    messages = call.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("request.messages must be a list of at least one message")
    for message in messages:
        texts = message if isinstance(message, dict) else {}
        if not all(isinstance(texts.get(name), str) for name in ("role", "content")):
            raise ValueError(
                f"the message {str(message)[:60]!r} must have a role and a content, both texts"
            )
    for name, least in (("sample_index", 0), *((name, 1) for name in _LIMITS)):
        value = call.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"request.{name} is {value!r}; it must be a whole number from {least}")


def compute_max_imported_cost(
    call: Mapping[str, Any], reply: CompletionBody, price: Price | None, cost_microusd: int | None
) -> RequestCost:
    """The most an answer can have been billed as: what its buyer says that it cost, else what a
    run would have reserved; without a price, what the server reported. A request without a limit
    could have what it got.
    """
    messages, max_tokens = get_billed_messages(call), get_max_tokens(call)
    if not max_tokens and reply.usage is not None:
        max_tokens = reply.usage.n_completion_tokens
    if cost_microusd is None and price is not None:
        cost_microusd = compute_reserve_microusd(price, messages, max_tokens)
    elif cost_microusd is None:
        reported = reply.usage.reported_usd if reply.usage else None
        cost_microusd = to_microusd_rounded_up(reported or 0.0)
    return RequestCost(compute_max_prompt_tokens(messages), max_tokens, cost_microusd)


def compute_imported_cost(
    reply: CompletionBody, price: Price | None, *, max_cost: RequestCost
) -> RequestCost:
    """The bill of an answer paid for elsewhere; without a price it cost what `max_cost` says."""
    bill = compute_request_cost(reply, price, max_cost=max_cost)
    return bill if price is not None else replace(bill, cost_microusd=max_cost.cost_microusd)
