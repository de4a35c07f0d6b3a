"""Slices of a budget. Adjacent slices add up to the total budget."""

import math

from bridgekd.cost.budget import Limits
from bridgekd.cost.request_cost import to_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import BudgetOptions, resolve_count

BudgetSlice = tuple[float, float]  # from one fraction of a budget to another
FULL_BUDGET: BudgetSlice = (0.0, 1.0)


def resolve_queries(amount: int | str | None, n_pool: int) -> int:
    """Return the number of queries for a pool of `n_pool` questions; None is all of them.

    Raises InputError if the number is above `n_pool`.
    """
    n = n_pool if amount is None else resolve_count(amount, n_pool)
    if n > n_pool:
        raise InputError(
            f"budget.queries of {n} is above the {n_pool} questions of the pool. "
            f"Set at most {n_pool}."
        )
    return n


def slice_amount(amount: int, budget_slice: BudgetSlice) -> int:
    """Return the integer part of `amount` that belongs to a slice.

    >>> [slice_amount(5, budget_slice) for budget_slice in ((0.0, 0.5), (0.5, 1.0))]
    [3, 2]
    """
    start, end = (math.floor(amount * fraction + 0.5) for fraction in budget_slice)
    return end - start


def compute_limits(
    budget: BudgetOptions, n_pool: int, budget_slice: BudgetSlice = FULL_BUDGET
) -> Limits:
    """Return the limits of a slice of a budget for a pool of `n_pool` questions."""
    microusd = None if budget.usd is None else to_microusd(budget.usd)
    amounts = (
        resolve_queries(budget.queries, n_pool),
        microusd,
        budget.tokens,
        budget.accepted_rationales,
    )
    return Limits(*(None if a is None else slice_amount(a, budget_slice) for a in amounts))
