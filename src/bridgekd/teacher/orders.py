"""What one buying asks for: each admitted request with its name and the most it can cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridgekd.config import Price, Teacher
from bridgekd.core.admission import Charge
from bridgekd.core.calls import TeacherRequest, billed_messages_of, call_request
from bridgekd.core.costs import prompt_token_bound, reserve_microusd
from bridgekd.core.replies import Bill, Reply
from bridgekd.errors import BadInput
from bridgekd.records import Completion

Accept = Callable[[str, str, str], bool]  # of an example's id, a row's state, its text


@dataclass(frozen=True, slots=True)
class Order:
    """A request at its place among the requests of a buying."""

    place: int
    request: TeacherRequest
    call: Mapping[str, Any]
    key: str
    most: Bill


def bound_of(teacher: Teacher, price: Price | None, request: TeacherRequest) -> Bill:
    """The most that a request to this teacher can be billed."""
    messages = billed_messages_of(call_request(teacher, request))
    cost = reserve_microusd(price, messages, teacher.max_tokens)
    return Bill(prompt_token_bound(messages), teacher.max_tokens, cost)


def refuse_long(model: str, price: Price | None, id: str, most: Bill) -> None:
    """BadInput where the price may not hold for so long a prompt."""
    longest = price and price.max_prompt_tokens
    if longest and most.n_prompt_tokens > longest:
        raise BadInput(
            f"Example {id} may have {most.n_prompt_tokens:,} prompt tokens, but the price of "
            f"{model} is known up to {longest:,} only. Set teacher.price as it is for long "
            f"prompts, or leave the example out."
        )


def tokens_of(bill: Bill) -> int:
    """Prompt and completion together."""
    return bill.n_prompt_tokens + bill.n_completion_tokens


def charge(bill: Bill, accepted: bool) -> Charge:
    """A bill in every unit that can be limited."""
    return Charge(1, bill.cost_microusd, tokens_of(bill), int(accepted))


def completion_of(order: Order, reply: Reply, bill: Bill) -> Completion:
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
