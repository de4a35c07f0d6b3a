"""What one buying asks for: each admitted request with its name and the most it can cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridgekd.api_client.chat_completion import CompletionBody, RequestCost
from bridgekd.api_client.request_key import TeacherRequest, build_request, get_billed_messages
from bridgekd.cost.budget import BudgetUse
from bridgekd.cost.request_cost import compute_max_prompt_tokens, compute_reserve_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Completion

AcceptFunction = Callable[[str, str, str], bool]  # of an example's id, a row's state, its text


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request at its place among the requests of a buying."""

    position: int
    request: TeacherRequest
    body: Mapping[str, Any]
    key: str
    max_cost: RequestCost


def compute_max_cost(
    teacher: TeacherOptions, price: Price | None, request: TeacherRequest
) -> RequestCost:
    """The most that a request to this teacher can be billed."""
    messages = get_billed_messages(build_request(teacher, request))
    cost = compute_reserve_microusd(price, messages, teacher.max_tokens)
    return RequestCost(compute_max_prompt_tokens(messages), teacher.max_tokens, cost)


def check_prompt_length(model: str, price: Price | None, id: str, most: RequestCost) -> None:
    """InputError where the price may not hold for so long a prompt."""
    longest = price and price.max_prompt_tokens
    if longest and most.n_prompt_tokens > longest:
        raise InputError(
            f"Example {id} may have {most.n_prompt_tokens:,} prompt tokens, but the price of "
            f"{model} is known up to {longest:,} only. Set teacher.price as it is for long "
            f"prompts, or leave the example out."
        )


def tokens_of(bill: RequestCost) -> int:
    """Prompt and completion together."""
    return bill.n_prompt_tokens + bill.n_completion_tokens


def to_budget_use(bill: RequestCost, accepted: bool) -> BudgetUse:
    """A bill in every unit that can be limited."""
    return BudgetUse(1, bill.cost_microusd, tokens_of(bill), int(accepted))


def build_completion(order: PendingRequest, reply: CompletionBody, bill: RequestCost) -> Completion:
    """The row of a final call."""
    return Completion(
        id=order.request.id,
        rank=order.request.rank,
        state=reply.state,
        text=reply.text,
        reasoning=reply.reasoning,
        n_prompt_tokens=bill.n_prompt_tokens,
        n_completion_tokens=bill.n_completion_tokens,
        cost_microusd=bill.cost_microusd,
        key=order.key,
    )
