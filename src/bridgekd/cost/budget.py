"""Decide whether the next request may be sent under the limits of a run.

The one idea: a request counts at its maximum cost until it is settled, then at its actual cost.
Requests are admitted in rank order, and the first that does not fit waits for those in flight. So
request i is admitted if and only if `costs of 1..i-1 + maximum of i <= limit`: what is purchased
depends on ranks and costs, never on the order in which answers arrive.
"""

import operator
from dataclasses import astuple, dataclass
from typing import Literal, get_args

LimitName = Literal["queries", "usd", "tokens", "accepted"]
StopReason = LimitName | Literal["pool"]  # a limit, or no requests left


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one run; None is no limit.

    microusd: in micro-dollars. tokens: prompt and completion together. accepted: answers that pass
    the check.
    """

    queries: int | None = None
    microusd: int | None = None
    tokens: int | None = None
    accepted: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """An amount in every unit that `Limits` can limit."""

    queries: int = 0
    microusd: int = 0
    tokens: int = 0
    accepted: int = 0

    def __add__(self, other: "BudgetUse") -> "BudgetUse":
        return BudgetUse(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: "BudgetUse") -> "BudgetUse":
        return BudgetUse(*map(operator.sub, astuple(self), astuple(other)))

    def maximum(self, other: "BudgetUse") -> "BudgetUse":
        """Return the larger amount in each unit."""
        return BudgetUse(*map(max, astuple(self), astuple(other)))


class BudgetTracker:
    """The budget of one run: the charged amount, and the amount reserved for requests in flight."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.charged = BudgetUse()
        self.reserved = BudgetUse()

    def find_blocking_limit(self, max_use: BudgetUse) -> LimitName | None:
        """Return the first limit that a request of at most `max_use` would exceed, or None."""
        total = self.charged + self.reserved + max_use
        names: tuple[LimitName, ...] = get_args(LimitName)
        for name, limit, amount in zip(names, astuple(self.limits), astuple(total), strict=True):
            if limit is not None and amount > limit:
                return name
        return None

    def reserve(self, max_use: BudgetUse) -> None:
        """Reserve `max_use` for a request that is about to be sent."""
        self.reserved += max_use

    def settle(self, max_use: BudgetUse, actual: BudgetUse) -> None:
        """Replace the reserve of a request by its actual cost."""
        self.reserved -= max_use
        self.charged += actual
