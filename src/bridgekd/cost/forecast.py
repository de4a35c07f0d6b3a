"""Forecast the cost of a purchase: guaranteed bounds, and a 95 % interval if answers are known.

The one idea: the purchase is simulated under the real rule of admission, once per draw of the
answers' lengths (`token_lengths.py`), so the interval includes a limit that ends it early. A
forecast has three separate parts: the guaranteed bounds, which follow from limits, reserves and
prices; the interval, which contains the cost in 95 of 100 cases; and the expected cost, its median.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bridgekd.cost.bounds import (
    CostBounds,
    PlannedRequest,
    compute_bounds,
    count_affordable,
)
from bridgekd.cost.budget import Limits
from bridgekd.cost.token_lengths import (
    NO_EVIDENCE,
    EvidenceSource,
    LengthDraws,
    LengthEvidence,
    draw_from_answers,
    draw_from_guess,
)
from bridgekd.recipe import Price

N_DRAWS = 1000
DRAW_BATCH_SIZE = 50
MAX_COLUMNS = 4000  # with more requests, one column represents several
TAIL = 0.025
NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class CostForecast:
    """The cost of one purchase in micro-dollars; `unpaid` and `total` are None without a price.

    unpaid: the new money. total: the amount that counts against the budget, which includes the
    original cost of reused answers. n_queries: the maximum number of requests. n_expected: the
    median number that the limits admit. n_reused: requests whose answers are in the ledger.
    counts_accepted: a limit on accepted answers ends the purchase at an unknown position, so the
    interval covers every position.
    """

    n_queries: int
    n_expected: int | None = None
    n_reused: int = 0
    reused_microusd: int = 0
    unpaid: CostBounds | None = None
    total: CostBounds | None = None
    source: EvidenceSource = "nothing"
    n_known: int = 0
    counts_accepted: bool = False


def forecast_cost(
    requests: Sequence[PlannedRequest],
    *,
    price: Price | None,
    max_tokens: int,
    limits: Limits = NO_LIMITS,
    ordered: bool = False,
    evidence: LengthEvidence = NO_EVIDENCE,
    room_microusd: int | None = None,
) -> CostForecast:
    """Return the cost of the requests that `limits` admit, in their order.

    Unless `ordered`, it is unknown which `limits.queries` of them are sent. `room_microusd` is what
    the hard limit of the ledger leaves for new money. The same arguments give the same forecast.
    """
    n = len(requests) if limits.queries is None else min(limits.queries, len(requests))
    requests = requests[:n] if ordered else requests
    reused = [r.known_cost for r in requests if r.known_cost and r.is_free] if ordered else []
    forecast = CostForecast(
        n_queries=count_affordable(requests, n, limits, ordered=ordered),
        n_reused=len(reused),
        reused_microusd=sum(r.microusd for r in reused),
        source=evidence.source,
        n_known=len(evidence.answers),
        counts_accepted=limits.accepted is not None,
    )
    if price is None:
        return forecast
    unpaid, total = compute_bounds(
        requests, n, price, limits, ordered=ordered, room_microusd=room_microusd
    )
    forecast = replace(forecast, unpaid=unpaid, total=total)
    rng = np.random.default_rng(0)
    draws = _draw_lengths(evidence, price, max_tokens, rng)
    if draws is None or n == 0:
        return forecast
    n_admitted, costs = _simulate(requests, n, draws, limits, ordered=ordered, rng=rng)
    return replace(
        forecast,
        n_expected=min(n, int(np.median(n_admitted))),
        unpaid=_add_interval(unpaid, costs[0], costs[2]),
        total=_add_interval(total, costs[1], costs[3]),
    )


def _draw_lengths(
    evidence: LengthEvidence, price: Price, max_tokens: int, rng: np.random.Generator
) -> LengthDraws | None:
    if evidence.source == "recordings":
        unused = np.zeros((N_DRAWS, 1))  # the cost of every request is known
        return LengthDraws(unused, unused, unused, unused, max_tokens)
    if (expected := evidence.expected_completion_tokens) is not None:
        return draw_from_guess(expected, evidence.answers, price, max_tokens, N_DRAWS, rng)
    return draw_from_answers(evidence.answers, price, max_tokens, N_DRAWS, rng)


def _simulate(
    requests: Sequence[PlannedRequest],
    n: int,
    draws: LengthDraws,
    limits: Limits,
    *,
    ordered: bool,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of requests that each draw admits [n_draws] and its costs [4, n_draws].

    The costs are unpaid and total if a limit on accepted answers ends the purchase as early as
    possible, then unpaid and total if it never does.
    """
    table = np.array([_to_row(r) for r in requests]).T
    step, n_admitted, costs = -(-n // MAX_COLUMNS), [], []
    for start in range(0, N_DRAWS, DRAW_BATCH_SIZE):
        positions = np.arange(rng.integers(step), n, step)[:MAX_COLUMNS]
        order = _choose_order(table.shape[1], positions, ordered=ordered, rng=rng)
        n_bytes, known, known_tokens, is_free, reserved, reserved_tokens = table[:, order]
        rows = slice(start, start + DRAW_BATCH_SIZE)
        tokens, total = draws.sample(rows, n_bytes, rng)
        total = np.where(np.isnan(known), np.minimum(total, reserved), known)
        tokens = np.where(np.isnan(known), tokens, known_tokens)
        ends = np.zeros(total.shape, dtype=bool)
        if limits.microusd is not None:
            ends |= step * (total.cumsum(axis=1) - total) + reserved > limits.microusd
        if limits.tokens is not None:
            ends |= step * (tokens.cumsum(axis=1) - tokens) + reserved_tokens > limits.tokens
        admitted = step * ~np.logical_or.accumulate(ends, axis=1)
        earliest = admitted * (positions < (np.inf if limits.accepted is None else limits.accepted))
        unpaid = np.where(is_free == 1, 0, total)
        parts = (unpaid * earliest, total * earliest, unpaid * admitted, total * admitted)
        n_admitted.append(admitted.sum(axis=1))
        costs.append([part.sum(axis=1) for part in parts])
        # The first draws show how many requests the limits admit. Later draws resolve these finer.
        step = min(step, -(-3 * int(n_admitted[-1].max() + 1) // MAX_COLUMNS))
    return np.concatenate(n_admitted), np.concatenate(costs, axis=1)


def _choose_order(
    n_requests: int, positions: np.ndarray, *, ordered: bool, rng: np.random.Generator
) -> np.ndarray:
    """Return which request each draw has at each position [DRAW_BATCH_SIZE, n_positions].

    Every window of one random permutation is a random sample, so one permutation serves all draws.
    """
    if ordered:
        return np.broadcast_to(positions, (DRAW_BATCH_SIZE, len(positions)))
    first = rng.integers(n_requests, size=(DRAW_BATCH_SIZE, 1))
    return np.asarray(rng.permutation(n_requests)[(first + positions) % n_requests])


def _to_row(request: PlannedRequest) -> tuple[float, ...]:
    """Return size, known cost and tokens (NaN without an answer), is_free, and the reserves."""
    known = request.known_cost
    cost = (known.microusd, known.n_tokens) if known else (np.nan, np.nan)
    return request.n_bytes, *cost, request.is_free, *request.reserve


def _add_interval(bounds: CostBounds, earliest: np.ndarray, costs: np.ndarray) -> CostBounds:
    """Return the bounds with the central 95 % of the draws; no median if the end is unknown."""
    ends = (np.quantile(earliest, TAIL), np.median(costs), np.quantile(costs, 1 - TAIL) + 1)
    low, expected, high = (int(np.clip(end, bounds.minimum, bounds.maximum)) for end in ends)
    is_end_known = np.array_equal(earliest, costs)
    return replace(bounds, ci_low=low, expected=expected if is_end_known else None, ci_high=high)
