"""A transport sends requests to a teacher and receives the answers.

The one idea: a transport is opened for one purchase and has one method to write, `send`: one
request in, one `RequestOutcome` out, which says what may have been billed. The scheduler does
the rest (budget, ledger, order, retries, rate limits); it knows no transport by name and uses only
the properties below. A transport is one file that ends in `TRANSPORT = Transport(...)`;
docs/teachers.md has a complete small one.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.request_key import TeacherRequest, build_request, get_billed_messages
from bridgekd.cost.request_cost import compute_max_prompt_tokens, compute_reserve_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.variants import NoOptions

if TYPE_CHECKING:
    from bridgekd.teacher.group_commit import GroupCommitter


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request at its position in a purchase. `body` is its JSON, `max_cost` its maximum cost."""

    position: int
    request: TeacherRequest
    body: Mapping[str, Any]
    key: str
    max_cost: RequestCost


class KnownAnswers(Protocol):
    """Answers that are known before a request is sent, such as recordings."""

    @property
    def source(self) -> str:
        """The name of their source, for messages."""

    def get_cost(self, request: TeacherRequest) -> RequestCost:
        """Return the exact cost of the answer; zero if there is none."""

    def has_answer(self, request: TeacherRequest) -> bool:
        """Return whether there is an answer to this sample of this question."""


@dataclass(frozen=True, slots=True)
class TransportContext:
    """The arguments of a new connection.

    commits: writes to the open ledger. note: shows a sentence to the user. answers: the result of
    the transport's `load_answers`, if it has one.
    """

    resolved: "ResolvedTeacher"
    api_key: str
    commits: "GroupCommitter"
    note: Callable[[str], None] = lambda text: None
    answers: KnownAnswers | None = None


class TeacherConnection:
    """An open connection to the teacher, for one purchase. A transport must override `send` only.

    max_in_flight: the maximum number of requests that are sent and not yet answered.
    """

    def __init__(self, context: TransportContext) -> None:
        self.max_in_flight = context.resolved.teacher.max_concurrent_requests

    async def open(self) -> None:
        """Prepare to send."""

    async def close(self) -> None:
        """Free what `open` acquired. No request is open."""

    async def send(self, pending: PendingRequest) -> RequestOutcome:
        """Send one request once and return how that ended.

        Raises only the errors of bridgekd and asyncio's cancellation.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Send what `send` has collected: no further request comes until some of it has ended."""

    def find_earlier(self, key: str) -> "asyncio.Task[None] | None":
        """Return the task that waits for a request of an earlier process; None if it is unknown.

        When the task has ended, the result is in the ledger.
        """
        return None

    async def stop(self) -> set[str]:
        """Send nothing more, and do not wait for work that continues without this process.

        Returns the keys of requests that were passed to `send` and never left this machine.
        """
        return set()


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to reach a teacher.

    open: creates the connection for one purchase. options: the transport's own keys in the recipe.
    is_paid: requests cost money, so a limit in dollars needs a price.
    local_source: the source of the answers, for messages; "" if requests go to teacher.base_url.
    has_batch_price: the price's batch factor applies. supports_rate_limits: the user's limits per
    minute apply. survives_process: requests continue after this process ends; a retry needs no
    pause, because it goes into the next file. load_answers: reads answers that are known before
    the purchase. prepare: returns the teacher with paths resolved against the recipe's folder.
    """

    name: str
    title: str
    summary: str
    open: Callable[[TransportContext], TeacherConnection]
    paper: str = ""
    options: type[BaseModel] = NoOptions
    is_paid: bool = True
    needs_api_key: bool = True
    local_source: str = ""
    has_batch_price: bool = False
    supports_rate_limits: bool = True
    survives_process: bool = False
    load_answers: Callable[[TeacherOptions, BaseModel], KnownAnswers] | None = None
    prepare: Callable[[TeacherOptions, BaseModel, Path], TeacherOptions] | None = None

    @property
    def sends_to_host(self) -> bool:
        """Whether data of the user are sent to the teacher's address."""
        return not self.local_source


@dataclass(frozen=True, slots=True)
class ResolvedTeacher:
    """A recipe's teacher with its transport, and what depends on both."""

    teacher: TeacherOptions
    transport: Transport
    options: BaseModel

    @property
    def price(self) -> Price | None:
        """The price of a request; None if it is unknown."""
        price, has_batch_price = self.teacher.list_price, self.transport.has_batch_price
        return price and price.for_transport(has_batch_price=has_batch_price)

    @property
    def host(self) -> str:
        """The server's name for messages, without the other parts of the URL."""
        return (
            self.transport.local_source
            or urlsplit(self.teacher.effective_base_url).hostname
            or "The teacher"
        )

    def load_answers(self) -> KnownAnswers | None:
        """Return the answers that are known before the purchase; None if there are none."""
        load = self.transport.load_answers
        return None if load is None else load(self.teacher, self.options)

    def compute_max_cost(self, request: TeacherRequest) -> RequestCost:
        """Return the maximum that a request to this teacher can be billed."""
        messages = get_billed_messages(build_request(self.teacher, request))
        n_completion = self.teacher.max_tokens
        cost = compute_reserve_microusd(self.price, messages, n_completion)
        return RequestCost(compute_max_prompt_tokens(messages), n_completion, cost)

    def check_price(self) -> None:
        """Raise InputError if dollars cannot be limited, because no price is known."""
        if self.transport.is_paid and self.price is None:
            raise InputError(
                f"Dollars are limited, but the price of {self.teacher.model} is unknown. Set "
                f"teacher.price in dollars per million tokens (0 and 0 for a free server)."
            )

    def check_prompt_length(self, id: str, max_cost: RequestCost) -> None:
        """Raise InputError if the price may not apply to a prompt of this length."""
        max_length = self.price and self.price.max_prompt_tokens
        if max_length and max_cost.n_prompt_tokens > max_length:
            raise InputError(
                f"Example {id} may have {max_cost.n_prompt_tokens:,} prompt tokens, but the price "
                f"of {self.teacher.model} is known up to {max_length:,} only. Set teacher.price to "
                f"the price of long prompts, or remove the example."
            )


def build_answer(text: str, *, n_prompt_tokens: int, n_completion_tokens: int) -> RequestOutcome:
    """Return the outcome of a request that was answered with `text`.

    The token counts are billed at the teacher's price.
    """
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": n_prompt_tokens, "completion_tokens": n_completion_tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return RequestOutcome("answered", raw=json.dumps({"choices": [choice], "usage": usage}))
