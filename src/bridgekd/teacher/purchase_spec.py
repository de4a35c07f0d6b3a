"""The terms of a purchase, and the functions of its caller."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bridgekd.cost.budget import Limits
from bridgekd.ledger.ledger import Purpose
from bridgekd.teacher.transport import TransportContext

AcceptFunction = Callable[[str, str, str], bool]  # (example id, state of the row, text)


def ignore_answer(id: str, state: str, text: str) -> None:
    """Let every purchase go on."""


@dataclass(frozen=True, slots=True)
class PurchaseSpec:
    """The terms of a purchase. `accept` decides which answers count in limits.accepted. `on_answer`
    gets (example id, state, text) of every final answer, and may raise to stop the purchase.
    """

    context: TransportContext
    limits: Limits
    run: str
    purpose: Purpose
    accept: AcceptFunction | None = None
    on_answer: Callable[[str, str, str], None] = ignore_answer
    backoff_s: float = 0.5
    on_progress: Callable[[int], None] = field(default=lambda done: None)
