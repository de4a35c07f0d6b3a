"""Answers that were paid for elsewhere: their requests as a run would send them, and their cost.

A recorded request gets the key that a run would compute, so that a run finds its answer.
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
from bridgekd.messages import format_value
from bridgekd.recipe import RESERVED_FIELDS, Price


def build_request_from_body(body: Mapping[str, Any]) -> dict[str, object]:
    """Return the request of a run that sends the same body as a recorded one.

    A run has a provider (`openai` by default) and a sample index (0), floats as sampling
    parameters, and a list as `stop`. Fields without a recipe key are under `extra`. Fields that are
    None, `stream` and `n` are dropped. Raises ValueError for a body that no run could send.
    """
    sent = {name: value for name, value in body.items() if value is not None}
    known = RESERVED_FIELDS | set(LOCAL_FIELDS)
    if isinstance(sent.get("provider"), dict):  # the routing field of OpenRouter
        known -= {"provider"}
    extra = sent.pop("extra", {})
    if not isinstance(extra, dict):
        raise ValueError(f"request.extra is {format_value(extra)}. It must be an object.")
    extra = extra | {name: sent.pop(name) for name in list(sent) if name not in known}
    request: dict[str, object] = {"provider": "openai", "sample_index": 0} | sent
    if extra:
        request["extra"] = extra
    request.pop("stream", None)
    if request.pop("n", 1) != 1:
        raise ValueError(
            f"n is {format_value(body['n'])}. Give each answer its own line and sample_index."
        )
    for name in ("temperature", "top_p"):
        if isinstance(value := request.get(name), int):
            request[name] = float(value)
    if isinstance(request.get("stop"), str):
        request["stop"] = [request["stop"]]
    check_request(request)
    return request


def check_request(request: Mapping[str, object]) -> None:
    """Raise ValueError if a request lacks what every request has."""
    for name in ("provider", "model"):
        if not isinstance(request.get(name), str) or not request[name]:
            raise ValueError(
                f"request.{name} is {format_value(request.get(name))}. It must be a name."
            )
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("request.messages must be a list of at least one message.")
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            raise ValueError(
                f"The message {format_value(message)} must have a role and a content, both strings."
            )
    for name, minimum in (("sample_index", 0), ("max_tokens", 1), ("max_completion_tokens", 1)):
        value = request.get(name, minimum)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(
                f"request.{name} is {format_value(value)}. It must be a whole number of at least "
                f"{minimum}."
            )


def compute_max_imported_cost(
    request: Mapping[str, Any],
    reply: CompletionBody,
    price: Price | None,
    cost_microusd: int | None,
) -> RequestCost:
    """Return the maximum cost of an imported answer.

    It is the stated cost, else what a run would reserve, else (no price) what the server reported.
    A request without a token limit is bounded by the tokens of its answer.
    """
    messages, max_tokens = get_billed_messages(request), get_max_tokens(request)
    if not max_tokens and reply.usage is not None:
        max_tokens = reply.usage.n_completion_tokens
    if cost_microusd is None and price is not None:
        cost_microusd = compute_reserve_microusd(price, messages, max_tokens)
    elif cost_microusd is None:
        reported_usd = reply.usage.reported_usd if reply.usage else None
        cost_microusd = to_microusd_rounded_up(reported_usd or 0.0)
    return RequestCost(compute_max_prompt_tokens(messages), max_tokens, cost_microusd)


def compute_imported_cost(
    reply: CompletionBody, price: Price | None, *, max_cost: RequestCost
) -> RequestCost:
    """Return the cost of an imported answer. Without a price it is that of `max_cost`."""
    cost = compute_request_cost(reply, price, max_cost=max_cost)
    return cost if price is not None else replace(cost, cost_microusd=max_cost.cost_microusd)
