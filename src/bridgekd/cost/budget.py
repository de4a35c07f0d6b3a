"""Whether the next call may be sent under a run's limits.

The one idea: a call counts as the most it can cost until it has settled, then as what it did
cost. Calls are asked about in rank order and the first that does not fit waits for those in
flight, so the last word on call i is always `costs of 1..i-1 + most of i <= limit`: what is
bought depends on rank and costs alone, never on which answer came back first.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LimitName = Literal["queries", "usd", "tokens", "accepted"]
StopReason = LimitName | Literal["pool"]  # what ended a buying: a limit, or no requests left


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may buy; None is no limit. Tokens are prompt and completion together; accepted
    counts the answers that pass the check.
    """

    queries: int | None = None
    microusd: int | None = None
    tokens: int | None = None
    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """An amount of buying, in every unit that can be limited."""

    queries: int = 0
    microusd: int = 0
    tokens: int = 0
    accepted: int = 0

    def __add__(self, other: "BudgetUse") -> "BudgetUse":
        return self._with(other, operator.add)

    def __sub__(self, other: "BudgetUse") -> "BudgetUse":
        return self._with(other, operator.sub)

    def maximum(self, other: "BudgetUse") -> "BudgetUse":
        """The larger of the two in each unit."""
        return self._with(other, max)

    def _with(self, other: "BudgetUse", combine: Callable[[int, int], int]) -> "BudgetUse":
        return BudgetUse(
            combine(self.queries, other.queries),
            combine(self.microusd, other.microusd),
            combine(self.tokens, other.tokens),
            combine(self.accepted, other.accepted),
        )


def find_exceeded_limit(limits: Limits, total: BudgetUse) -> LimitName | None:
    """The first limit that `total` passes, in the order of `Limit`; None where all hold."""
    if limits.queries is not None and total.queries > limits.queries:
        return "queries"
    if limits.microusd is not None and total.microusd > limits.microusd:
        return "usd"
    if limits.tokens is not None and total.tokens > limits.tokens:
        return "tokens"
    if limits.accepted is not None and total.accepted > limits.accepted:
        return "accepted"
    return None


class BudgetTracker:
    """One run's account: what is charged, and what is held for calls in flight."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.charged = BudgetUse()
        self.held = BudgetUse()

    def find_blocking_limit(self, most: BudgetUse) -> LimitName | None:
        """The limit that a further call of at most `most` would pass now; None where it fits."""
        return find_exceeded_limit(self.limits, self.charged + self.held + most)

    def reserve(self, most: BudgetUse) -> None:
        """Sets `most` aside for a call that is about to be sent."""
        self.held += most

    def settle(self, most: BudgetUse, actual: BudgetUse) -> None:
        """Turns what was held for a call into what it cost."""
        self.held -= most
        self.charged += actual
