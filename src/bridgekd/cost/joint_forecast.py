"""What several purchases cost together, where a request that they share is paid once.

The one idea: purchases come in groups. Within a group one purchase sends every request of the
others, so the group costs what its most expensive member costs. What two groups share is unknown,
so together they cost at least the most expensive group and at most the sum of all groups.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bridgekd.cost.bounds import CostBounds
from bridgekd.cost.forecast import CostForecast


def forecast_total(
    groups: Sequence[Sequence[CostForecast]],
    *,
    everything: CostForecast | None = None,
    room_microusd: int | None = None,
) -> CostForecast:
    """Return the unpaid cost of all purchases together; it is None without a price.

    No group is empty. `everything` is each request that there can be, once. `room_microusd` is what
    the hard limit of the ledger leaves for new money.
    """
    members = [f for group in groups for f in group]
    n_queries = sum(max(f.n_queries for f in group) for group in groups)
    total = CostForecast(
        n_queries if everything is None else min(n_queries, everything.n_queries),
        source=members[0].source,
        n_known=max(f.n_known for f in members),
    )
    if any(f.unpaid is None for f in members):
        return total
    tops = np.array([np.max([_get_ends(f) for f in group], axis=0) for group in groups])
    floor, low, expected, high, ceiling = tops.max(axis=0)
    if len(groups) > 1:
        expected, (high, ceiling) = np.nan, tops[:, 3:].sum(axis=0)
    if everything is not None:
        high, ceiling = np.fmin((high, ceiling), _get_ends(everything)[3:])
    if room_microusd is not None:
        ceiling = min(ceiling, max(0, room_microusd))
    if np.isnan(low + high):
        return replace(total, unpaid=CostBounds(int(min(floor, ceiling)), int(ceiling)))
    floor, low, high = np.minimum((floor, low, max(low, high)), ceiling)
    middle = None if np.isnan(expected) else int(np.clip(expected, low, high))
    return replace(total, unpaid=CostBounds(int(floor), int(ceiling), int(low), middle, int(high)))


def _get_ends(forecast: CostForecast) -> np.ndarray:
    """Return floor, low, expected, high and ceiling of the unpaid cost; NaN for what is unknown."""
    b = forecast.unpaid
    ends = () if b is None else (b.minimum, b.ci_low, b.expected, b.ci_high, b.maximum)
    return np.array([np.nan if end is None else end for end in ends])
