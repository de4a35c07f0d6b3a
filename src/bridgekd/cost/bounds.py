"""What a buying costs at the least and at the most, whatever the answers are.

What this keeps true, under the rule of `cost/budget.py` and with a server that bills no more
than was reserved: no bill passes `ceiling`; and where no request is refused (which is free) and no
tokenizer makes fewer tokens than MOST_BYTES_PER_TOKEN says, none is below `floor`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridgekd.cost.budget import Limits
from bridgekd.cost.request_cost import (
    compute_cost_microusd,
    compute_max_prompt_tokens,
    compute_reserve_microusd,
)
from bridgekd.recipe import Price
from bridgekd.records import Message

MAX_BYTES_PER_TOKEN = 12  # the tokenizers in use stay below this on plain text


@dataclass(frozen=True, slots=True)
class KnownCost:
    """What an answer that is known costs: in the ledger, what it first cost; `owed`, in recordings
    that are still to be replayed, what it will.
    """

    microusd: int
    n_tokens: int
    is_unpaid: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One call that may be bought. A `repeat` asks what an earlier one asks: it is charged again,
    but nothing is paid for it.
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
        return self.is_repeat or (self.known_cost is not None and not self.known_cost.is_unpaid)


@dataclass(frozen=True, slots=True)
class CostBounds:
    """A bill in micro-dollars: sure ends, and within them what is expected, if anything is."""

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
    """Calls with the least and the most that each can take."""
    amounts: dict[tuple[int, int], tuple[int, int]] = {}  # prompts of one size cost the same
    calls = []
    for i, messages in enumerate(prompts):
        n_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
        n_least = n_bytes // MAX_BYTES_PER_TOKEN
        size = (n_bytes, len(messages))
        if size not in amounts:
            least = (
                0
                if price is None
                else compute_cost_microusd(_get_cheapest_price(price), n_least, 1)
            )
            amounts[size] = (least, compute_reserve_microusd(price, messages, max_tokens))
        calls.append(
            PlannedRequest(
                n_bytes,
                *amounts[size],
                n_least + 1,
                compute_max_prompt_tokens(messages) + max_tokens,
                settled[i] if settled else None,
                bool(repeats and repeats[i]),
            )
        )
    return calls


def compute_bounds(
    calls: Sequence[PlannedRequest],
    price: Price,
    limits: Limits,
    *,
    ordered: bool,
    room_microusd: int | None = None,
) -> tuple[CostBounds, CostBounds]:
    """The new money, and the whole charge, of `limits.queries` of `calls`: of the first if they are
    `ordered`, else of any. `room_microusd` is what the hard stop leaves for new money.
    """
    n = len(calls) if limits.queries is None else min(limits.queries, len(calls))
    n_least = n if limits.accepted is None else min(n, limits.accepted)
    calls = calls[:n] if ordered else calls
    room = None if room_microusd is None else max(0, room_microusd)
    unpaid = [c for c in calls if not c.is_free]
    ends = _compute_min_at_limits(calls, price, limits, room)
    new = CostBounds(
        minimum=min([_sum(map(_get_min_unpaid, calls), n_least, ordered), *(e.new for e in ends)]),
        maximum=min(
            [
                _sum(map(_get_max_unpaid, calls), n, ordered, largest=True),
                *_compute_max_at_limits(
                    unpaid, price, limits, n, paid=_sum_known_prefix(calls) if ordered else 0
                ),
                *([] if room is None else [room]),
            ]
        ),
    )
    free = _sum(map(_get_max_free, calls), n, ordered, largest=True)
    whole = CostBounds(
        minimum=min([_sum(map(_get_min, calls), n_least, ordered), *(e.whole for e in ends)]),
        maximum=min(
            [
                _sum(map(_get_max, calls), n, ordered, largest=True),
                *_compute_max_at_limits(calls, price, limits, n, paid=0),
                *([] if room is None else [room + free]),
            ]
        ),
    )
    return new, whole


def count_affordable(calls: Sequence[PlannedRequest], limits: Limits, *, ordered: bool) -> int:
    """How many of `calls` the limits can admit at the very most: each at the least it can cost."""
    n = len(calls) if limits.queries is None else min(limits.queries, len(calls))
    calls = calls[:n] if ordered else calls
    for limit, amount in ((limits.microusd, _get_min), (limits.tokens, _get_min_tokens)):
        if limit is not None:
            sizes = map(amount, calls)
            n = min(n, _count_within(sizes if ordered else sorted(sizes), limit))
    return n


@dataclass(frozen=True, slots=True)
class _LimitCost:
    """The least that has been charged, and newly paid, when a limit ends a buying."""

    whole: int
    new: int


def _compute_min_at_limits(
    calls: Sequence[PlannedRequest], price: Price, limits: Limits, room: int | None
) -> list[_LimitCost]:
    ends = []
    free = sum(map(_get_max_free, calls))
    if limits.microusd is not None:
        whole = max(0, limits.microusd - max(map(get_reserved_microusd, calls), default=0))
        ends.append(_LimitCost(whole, max(0, whole - free)))
    if limits.tokens is not None:
        free_tokens = sum(get_reserved_tokens(c) for c in calls if c.is_free or c.known_cost)
        tokens = limits.tokens - max(map(get_reserved_tokens, calls), default=0) - free_tokens
        least = _multiply_rate(min(_list_rates(price)), max(0, tokens))
        ends.append(_LimitCost(least, least))
    if room is not None:
        least = max(0, room - max(map(_get_max_unpaid, calls), default=0))
        ends.append(_LimitCost(least, least))
    return ends


def _compute_max_at_limits(
    calls: Sequence[PlannedRequest], price: Price, limits: Limits, n: int, *, paid: int
) -> list[int]:
    """What no bill can pass by a limit, with `paid` of it charged before anything new is.

    Answers among `calls` that were settled at another price may have cost more a token.
    """
    caps = []
    if limits.microusd is not None:
        caps.append(max(0, limits.microusd - paid))
    if limits.tokens is not None:
        dearest = max(_list_rates(price))
        more = sum(
            max(0, c.known_cost.microusd - _multiply_rate(dearest, c.known_cost.n_tokens) + 1)
            for c in calls
            if c.known_cost
        )
        caps.append(_multiply_rate(dearest, limits.tokens) + n + more)  # n: each call is rounded up
    return caps


def _sum_known_prefix(calls: Sequence[PlannedRequest]) -> int:
    """What the calls before the first new one are charged."""
    paid = 0
    for call in calls:
        if call.known_cost is None or not call.is_free:
            break
        paid += call.known_cost.microusd
    return paid


def _get_min(call: PlannedRequest) -> int:
    return call.known_cost.microusd if call.known_cost else call.min_microusd


def _get_max(call: PlannedRequest) -> int:
    return call.known_cost.microusd if call.known_cost else call.max_microusd


def get_reserved_microusd(call: PlannedRequest) -> int:
    """What admission asks room for: a recalled answer by the same rule as when it was bought."""
    if call.known_cost and call.known_cost.is_unpaid:
        return call.known_cost.microusd
    return max(call.max_microusd, _get_max(call))


def _get_min_unpaid(call: PlannedRequest) -> int:
    return 0 if call.is_free else _get_min(call)


def _get_max_unpaid(call: PlannedRequest) -> int:
    return 0 if call.is_free else _get_max(call)


def _get_max_free(call: PlannedRequest) -> int:
    return _get_max(call) if call.is_free else 0


def _get_min_tokens(call: PlannedRequest) -> int:
    return call.known_cost.n_tokens if call.known_cost else call.min_tokens


def get_reserved_tokens(call: PlannedRequest) -> int:
    if call.known_cost and call.known_cost.is_unpaid:
        return call.known_cost.n_tokens
    return max(call.max_tokens, call.known_cost.n_tokens if call.known_cost else 0)


def _sum(amounts: Iterable[int], n: int, ordered: bool, *, largest: bool = False) -> int:
    """Of the first `n`, or of the n smallest or largest."""
    return sum((list(amounts) if ordered else sorted(amounts, reverse=largest))[:n])


def _count_within(amounts: Iterable[int], limit: int) -> int:
    n = 0
    for amount in amounts:
        limit -= amount
        if limit < 0:
            break
        n += 1
    return n


def _list_rates(price: Price) -> list[float]:
    kinds = (price.input, price.output, price.cached_input, price.reasoning)
    return [k for k in kinds if k is not None]


def _get_cheapest_price(price: Price) -> Price:
    return Price(
        input=price.input if price.cached_input is None else min(price.input, price.cached_input),
        output=price.output if price.reasoning is None else min(price.output, price.reasoning),
    )


def _multiply_rate(rate: float, tokens: int) -> int:
    return compute_cost_microusd(Price(input=rate, output=0), tokens, 0)
