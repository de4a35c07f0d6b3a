"""The guaranteed minimum and maximum cost of a purchase, whatever the answers are.

Guarantee, under the rule of `cost/budget.py` and with a server that bills at most the reserve: no
cost is above the maximum. No cost is below the minimum if no request is refused (which is free)
and no tokenizer makes fewer tokens than MAX_BYTES_PER_TOKEN implies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from bridgekd.cost.budget import Limits
from bridgekd.cost.request_cost import (
    compute_cost_microusd,
    compute_max_prompt_tokens,
    compute_reserve_microusd,
    count_prompt_bytes,
)
from bridgekd.recipe import Price
from bridgekd.records import Message

MAX_BYTES_PER_TOKEN = 12  # the tokenizers in use stay below this on plain text


@dataclass(frozen=True, slots=True)
class KnownCost:
    """The cost of a known answer: from the ledger, or from recordings if it `is_unpaid`."""

    microusd: int
    n_tokens: int
    is_unpaid: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request that may be sent, with the bounds of its cost if its answer is not known.

    is_repeat: an earlier request is the same. This one is charged again and costs no new money.
    """

    n_bytes: int
    min_microusd: int
    max_microusd: int
    min_tokens: int
    max_tokens: int
    known_cost: KnownCost | None = None
    is_repeat: bool = False

    @property
    def is_free(self) -> bool:
        """Whether it costs no new money."""
        return self.is_repeat or (self.known_cost is not None and not self.known_cost.is_unpaid)

    @property
    def charge(self) -> tuple[int, int]:
        """Minimum and maximum of what counts against the budget, in micro-dollars."""
        known = self.known_cost
        return (known.microusd, known.microusd) if known else (self.min_microusd, self.max_microusd)

    @property
    def new_charge(self) -> tuple[int, int]:
        """Minimum and maximum of the new money, in micro-dollars."""
        return (0, 0) if self.is_free else self.charge

    @property
    def reserve(self) -> tuple[int, int]:
        """Micro-dollars and tokens that admission reserves.

        An answer from the ledger is admitted by the same rule as when it was purchased.
        """
        known = self.known_cost
        if known is None:
            return self.max_microusd, self.max_tokens
        if known.is_unpaid:
            return known.microusd, known.n_tokens
        return max(self.max_microusd, known.microusd), max(self.max_tokens, known.n_tokens)


@dataclass(frozen=True, slots=True)
class CostBounds:
    """A cost in micro-dollars: guaranteed bounds, and a 95 % interval and median if known."""

    minimum: int
    maximum: int
    ci_low: int | None = None
    expected: int | None = None
    ci_high: int | None = None


def plan_requests(
    prompts: Sequence[Sequence[Message]],
    price: Price | None,
    max_tokens: int,
    *,
    settled: Sequence[KnownCost | None] = (),
    repeats: Sequence[bool] = (),
) -> list[PlannedRequest]:
    """Return one request for each of n prompts. `settled` and `repeats` are [n], or empty."""
    amounts: dict[tuple[int, int], tuple[int, int]] = {}  # prompts of one size cost the same
    requests = []
    for i, messages in enumerate(prompts):
        n_bytes = count_prompt_bytes(messages)
        min_prompt_tokens = n_bytes // MAX_BYTES_PER_TOKEN
        size = (n_bytes, len(messages))
        if size not in amounts:
            minimum = compute_cost_microusd(_get_cheapest(price), min_prompt_tokens, 1)
            amounts[size] = (minimum, compute_reserve_microusd(price, messages, max_tokens))
        requests.append(
            PlannedRequest(
                n_bytes,
                *amounts[size],
                min_prompt_tokens + 1,
                compute_max_prompt_tokens(messages) + max_tokens,
                settled[i] if settled else None,
                bool(repeats and repeats[i]),
            )
        )
    return requests


def compute_bounds(
    requests: Sequence[PlannedRequest],
    n: int,
    price: Price,
    limits: Limits,
    *,
    ordered: bool,
    room_microusd: int | None = None,
) -> tuple[CostBounds, CostBounds]:
    """Return the bounds of the new money and of the total charge of a purchase.

    It sends `requests` in their order (`ordered`, n = len(requests)), or any `n` of them.
    `room_microusd` is what the hard limit leaves for new money.
    """
    n_min = n if limits.accepted is None else min(n, limits.accepted)
    room = [] if room_microusd is None else [max(0, room_microusd)]
    free = [r.charge[1] if r.is_free else 0 for r in requests]
    at_limits = _compute_min_at_limits(requests, price, limits, room, sum(free))
    known_prefix = takewhile(lambda r: r.is_free and r.known_cost, requests) if ordered else ()
    paid = sum(r.charge[1] for r in known_prefix)
    unpaid = [r for r in requests if not r.is_free]
    new_caps = _compute_max_at_limits(unpaid, price, limits, n, paid=paid)
    total_caps = _compute_max_at_limits(requests, price, limits, n, paid=0)
    total_room = [amount + _sum(free, n, ordered, largest=True) for amount in room]

    def build(
        charges: list[tuple[int, int]], min_at_limits: Iterable[int], caps: list[int]
    ) -> CostBounds:
        minimum = _sum((low for low, _ in charges), n_min, ordered)
        maximum = _sum((high for _, high in charges), n, ordered, largest=True)
        return CostBounds(min([minimum, *min_at_limits]), min([maximum, *caps]))

    return (
        build([r.new_charge for r in requests], [new for new, _ in at_limits], [*new_caps, *room]),
        build([r.charge for r in requests], [t for _, t in at_limits], [*total_caps, *total_room]),
    )


def count_affordable(
    requests: Sequence[PlannedRequest], n: int, limits: Limits, *, ordered: bool
) -> int:
    """Return how many of the `n` requests the limits admit if each has its minimum cost."""
    costs = [r.charge[0] for r in requests]
    tokens = [r.known_cost.n_tokens if r.known_cost else r.min_tokens for r in requests]
    for limit, amounts in ((limits.microusd, costs), (limits.tokens, tokens)):
        if limit is not None:
            totals = accumulate(amounts if ordered else sorted(amounts))
            n = min(n, sum(total <= limit for total in totals))
    return n


def _compute_min_at_limits(
    requests: Sequence[PlannedRequest], price: Price, limits: Limits, room: list[int], free: int
) -> list[tuple[int, int]]:
    """Return for each limit the minimum new money and total charge if it ends the purchase.

    `free` is the charge of all requests that cost no new money.
    """
    minima = []
    if limits.microusd is not None:
        total = max(0, limits.microusd - max((r.reserve[0] for r in requests), default=0))
        minima.append((max(0, total - free), total))
    if limits.tokens is not None:
        known_tokens = sum(r.reserve[1] for r in requests if r.is_free or r.known_cost)
        max_reserve = max((r.reserve[1] for r in requests), default=0)
        n_tokens = max(0, limits.tokens - max_reserve - known_tokens)
        minimum = _multiply_rate(min(_list_rates(price)), n_tokens)
        minima.append((minimum, minimum))
    for amount in room:
        minimum = max(0, amount - max((r.new_charge[1] for r in requests), default=0))
        minima.append((minimum, minimum))
    return minima


def _compute_max_at_limits(
    requests: Sequence[PlannedRequest], price: Price, limits: Limits, n: int, *, paid: int
) -> list[int]:
    """Return for each limit the maximum cost under it, if `paid` of it is charged first.

    Known answers among `requests` may have been settled at a higher price per token.
    """
    maxima = []
    if limits.microusd is not None:
        maxima.append(max(0, limits.microusd - paid))
    if limits.tokens is not None:
        rate = max(_list_rates(price))
        known_costs = [r.known_cost for r in requests if r.known_cost]
        surplus = sum(
            max(0, k.microusd - _multiply_rate(rate, k.n_tokens) + 1) for k in known_costs
        )
        # n: the cost of each request is rounded up.
        maxima.append(_multiply_rate(rate, limits.tokens) + n + surplus)
    return maxima


def _sum(amounts: Iterable[int], n: int, ordered: bool, *, largest: bool = False) -> int:
    """Return the sum of the first `n` amounts if `ordered`, else of the n smallest or largest."""
    return sum((list(amounts) if ordered else sorted(amounts, reverse=largest))[:n])


def _list_rates(price: Price) -> list[float]:
    rates = (price.input, price.output, price.cached_input, price.reasoning)
    return [rate for rate in rates if rate is not None]


def _get_cheapest(price: Price | None) -> Price | None:
    """Return the price of a request whose tokens all have the lowest rate that they can have."""
    return price and Price(
        input=price.input if price.cached_input is None else min(price.input, price.cached_input),
        output=price.output if price.reasoning is None else min(price.output, price.reasoning),
    )


def _multiply_rate(rate: float, n_tokens: int) -> int:
    return compute_cost_microusd(Price(input=rate, output=0), n_tokens, 0)
