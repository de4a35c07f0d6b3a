"""What a transport is: a way on which requests reach a teacher and answers come back.

The one idea: a transport is opened for one purchase and then has one method to write, `send`: one
request in, one `Outcome` out, which says what may have become of the money. Budget, ledger, order,
retries and limits are not its business: `buying.py` knows no transport by name and only asks for
the properties below. A transport is one file that ends in `TRANSPORT = Transport(...)`;
docs/teachers.md has a complete small one.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from bridgekd.api_client.chat_completion import RequestCost
from bridgekd.api_client.outcome import RequestOutcome
from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.errors import InputError
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.teacher.pending_request import PendingRequest
from bridgekd.variants import NoOptions

if TYPE_CHECKING:
    from bridgekd.teacher.group_commit import GroupCommitter


class KnownAnswers(Protocol):
    """Answers that are known before anything is sent, such as recordings."""

    @property
    def source(self) -> str:
        """Where they are from, for messages."""

    def get_cost(self, request: TeacherRequest) -> RequestCost:
        """Return exactly what the answer costs; nothing where there is none."""

    def find_missing(self, requests: Iterable[TeacherRequest]) -> set[str]:
        """Return the ids of the requests that have no answer."""


@dataclass(frozen=True, slots=True)
class TransportContext:
    """What a connection is opened with.

    commits: the way to the open ledger. note: takes sentences for the user. answers: what
    `load_answers` gave, if the transport has it.
    """

    resolved: "ResolvedTeacher"
    api_key: str
    commits: "GroupCommitter"
    note: Callable[[str], None] = lambda text: None
    answers: KnownAnswers | None = None


class TeacherConnection:
    """An open way to the teacher, for one purchase. A transport writes `send`; the rest may stay.

    max_in_flight: how many requests may be sent and not yet answered.
    """

    def __init__(self, context: TransportContext) -> None:
        self.max_in_flight = context.resolved.teacher.max_concurrent_requests

    async def open(self) -> None:
        """Get ready to send."""

    async def close(self) -> None:
        """Free what `open` took; nothing is in flight."""

    async def send(self, order: PendingRequest) -> RequestOutcome:
        """Send one request once and return how that ended.

        Raises nothing but the errors of bridgekd and asyncio's cancellation.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Send what `send` has collected: until some of it has ended, no further request comes."""

    def find_earlier(self, key: str) -> "asyncio.Task[None] | None":
        """Return the work on a request that an earlier process sent and that is still open.

        When it has ended, its result is in the ledger. None: this connection knows nothing of it.
        """
        return None

    async def stop(self) -> set[str]:
        """Send nothing more, and do not wait for what goes on without this process.

        Returns the keys of requests that were given to `send` and have not left this machine.
        """
        return set()


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to reach a teacher.

    open: gives the connection for one purchase. options: the transport's own keys in the recipe.
    is_paid: whether requests cost money, so that a limit in dollars needs a price.
    local_source: what answers come from, for messages; "" where requests go to teacher.base_url.
    has_batch_price: whether the price's batch factor applies. supports_rate_limits: whether the
    user's limits per minute apply. survives_process: whether requests go on when this process ends
    (a retry then needs no pause: it is collected for the next file). load_answers: reads answers
    that are known beforehand. prepare: gives the teacher with its paths found from the recipe's
    folder.
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
        """Whether data of the user leave for the teacher's address."""
        return not self.local_source


@dataclass(frozen=True, slots=True)
class ResolvedTeacher:
    """A recipe's teacher with its transport and what depends on both."""

    teacher: TeacherOptions
    transport: Transport
    options: BaseModel

    @property
    def price(self) -> Price | None:
        """What a request is charged; None where nobody knows."""
        price, has_batch_price = self.teacher.list_price, self.transport.has_batch_price
        return price and price.for_transport(has_batch_price=has_batch_price)

    @property
    def host(self) -> str:
        """The server's name for messages, without what else a URL may carry."""
        return (
            self.transport.local_source
            or urlsplit(self.teacher.effective_base_url).hostname
            or "The teacher"
        )

    def load_answers(self) -> KnownAnswers | None:
        """Return the answers that are known beforehand; None where the transport knows none."""
        load = self.transport.load_answers
        return None if load is None else load(self.teacher, self.options)

    def check_price(self) -> None:
        """Raise InputError where dollars cannot be limited, because no price is known."""
        if self.transport.is_paid and self.price is None:
            raise InputError(
                f"Dollars are limited, but the price of {self.teacher.model} is unknown. Set "
                f"teacher.price in dollars per million tokens (0 and 0 for a free server)."
            )


def build_answer(text: str, *, n_prompt_tokens: int, n_completion_tokens: int) -> RequestOutcome:
    """Return the outcome of a request that was answered with `text`.

    The token counts are what it is billed, at the teacher's price.
    """
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": n_prompt_tokens, "completion_tokens": n_completion_tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return RequestOutcome("answered", raw=json.dumps({"choices": [choice], "usage": usage}))
