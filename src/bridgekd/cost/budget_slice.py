"""Slices of a budget. Adjacent slices add up to the total budget."""

import math

from bridgekd.cost.budget import Limits
from bridgekd.cost.request_cost import to_microusd
from bridgekd.errors import InputError
from bridgekd.recipe import BudgetOptions, resolve_count

BudgetSlice = tuple[float, float]  # from one fraction of a budget to another
FULL_BUDGET: BudgetSlice = (0.0, 1.0)


def resolve_questions(amount: int | str | None, n_pool: int, n_samples: int = 1) -> int:
    """Return the questions that a budget of `amount` queries buys from a pool of `n_pool`, each
    with `n_samples` queries; None is all of them.

    Raises InputError if this is no question, or more than the pool has.
    """
    if amount is None:
        return n_pool
    n_queries = resolve_count(amount, n_pool)
    of = f" with {n_samples} samples each" if n_samples > 1 else ""
    if n_queries > n_pool * n_samples:
        raise InputError(
            f"budget.queries of {n_queries} is above the {n_pool} questions of the pool{of}. "
            f"Set at most {n_pool * n_samples}."
        )
    if 0 < n_queries < n_samples:
        raise InputError(
            f"budget.queries of {n_queries} buys no question{of}. Raise it, or lower the samples."
        )
    return n_queries // n_samples


def slice_amount(amount: int, budget_slice: BudgetSlice) -> int:
    """Return the integer part of `amount` that belongs to a slice.

    >>> [slice_amount(5, budget_slice) for budget_slice in ((0.0, 0.5), (0.5, 1.0))]
    [3, 2]
    """
    start, end = (math.floor(amount * fraction + 0.5) for fraction in budget_slice)
    return end - start


def compute_limits(
    budget: BudgetOptions,
    n_pool: int,
    budget_slice: BudgetSlice = FULL_BUDGET,
    n_samples: int = 1,
) -> Limits:
    """Return the limits of a slice of a budget for a pool of `n_pool` questions. That of queries is
    a multiple of `n_samples`.
    """
    microusd = None if budget.usd is None else to_microusd(budget.usd)
    amounts = (
        resolve_questions(budget.queries, n_pool, n_samples),
        microusd,
        budget.tokens,
        budget.accepted_rationales,
    )
    questions, *others = (None if a is None else slice_amount(a, budget_slice) for a in amounts)
    return Limits(None if questions is None else questions * n_samples, *others)
