"""A slice of a budget: what it admits. Slices that follow on add up to the whole budget."""

import math

from bridgekd.cost.budget import Limits
from bridgekd.cost.request_cost import to_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import BudgetOptions, resolve_count

BudgetSlice = tuple[float, float]  # from one fraction of a budget to another
FULL_BUDGET: BudgetSlice = (0.0, 1.0)


def resolve_queries(amount: int | str | None, n_pool: int) -> int:
    """Return the number of queries for a pool of n; None is the whole pool.

    Raises InputError if it is above the pool.
    """
    if amount is None:
        return n_pool
    n = resolve_count(amount, n_pool)
    if n > n_pool:
        raise InputError(
            f"budget.queries of {n} is above the {n_pool} questions of the pool. "
            f"Set at most {n_pool}."
        )
    return n


def slice_amount(amount: int, part: BudgetSlice) -> int:
    """Return the whole number between two fractions of an amount.

    >>> [slice_amount(5, part) for part in ((0.0, 0.5), (0.5, 1.0))]
    [3, 2]
    """
    start, end = (math.floor(amount * fraction + 0.5) for fraction in part)
    return end - start


def compute_limits(budget: BudgetOptions, n_pool: int, part: BudgetSlice = FULL_BUDGET) -> Limits:
    """Return what a slice of a budget admits for a pool of n questions."""

    def cut(amount: int | None) -> int | None:
        return None if amount is None else slice_amount(amount, part)

    return Limits(
        queries=slice_amount(resolve_queries(budget.queries, n_pool), part),
        microusd=cut(None if budget.usd is None else to_microusd(budget.usd)),
        tokens=cut(budget.tokens),
        accepted=cut(budget.accepted_rationales),
    )
