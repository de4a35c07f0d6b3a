"""Forecast the total cost of several purchases. A request that they share is paid once.

The one idea: purchases form groups. Within a group one purchase sends every request of the others,
so the cost of the group is that of its most expensive member. It is unknown what two groups share,
so the total is at least the cost of the most expensive group and at most the sum of all groups.
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
    """Return the forecast of all purchases together; its `unpaid` is None without a price.

    No group is empty. `everything` forecasts every possible request once. `room_microusd` is what
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
    largest = np.array([np.max([_get_ends(f) for f in group], axis=0) for group in groups])
    minimum, low, expected, high, maximum = largest.max(axis=0)
    if len(groups) > 1:
        expected, (high, maximum) = np.nan, largest[:, 3:].sum(axis=0)
    if everything is not None:
        high, maximum = np.fmin((high, maximum), _get_ends(everything)[3:])
    if room_microusd is not None:
        maximum = min(maximum, max(0, room_microusd))
    if np.isnan(low + high):
        return replace(total, unpaid=CostBounds(int(min(minimum, maximum)), int(maximum)))
    minimum, low, high = np.minimum((minimum, low, max(low, high)), maximum)
    median = None if np.isnan(expected) else int(np.clip(expected, low, high))
    return replace(
        total, unpaid=CostBounds(int(minimum), int(maximum), int(low), median, int(high))
    )


def _get_ends(forecast: CostForecast) -> np.ndarray:
    """Return minimum, low, expected, high and maximum of the unpaid cost; NaN if unknown."""
    b = forecast.unpaid
    ends = () if b is None else (b.minimum, b.ci_low, b.expected, b.ci_high, b.maximum)
    return np.array([np.nan if end is None else end for end in ends])
