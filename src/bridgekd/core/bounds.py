"""What a buying costs at the least and at the most, whatever the answers are.

What this keeps true, under the rule of `core/admission.py` and with a server that bills no more
than was reserved: no bill passes `ceiling`; and where no request is refused (which is free) and no
tokenizer makes fewer tokens than MOST_BYTES_PER_TOKEN says, none is below `floor`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridgekd.config import Price
from bridgekd.core.admission import Limits
from bridgekd.core.costs import cost_microusd, prompt_token_bound, reserve_microusd
from bridgekd.records import Message

MOST_BYTES_PER_TOKEN = 12  # the tokenizers in use stay below this on plain text


@dataclass(frozen=True, slots=True)
class Settled:
    """What an answer that is known costs: in the ledger, what it first cost; `owed`, in recordings
    that are still to be replayed, what it will.
    """

    microusd: int
    n_tokens: int
    owed: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may be bought. A `repeat` asks what an earlier one asks: it is charged again,
    but nothing is paid for it.
    """

    n_bytes: int
    least_microusd: int
    most_microusd: int
    least_tokens: int
    most_tokens: int
    settled: Settled | None = None
    repeat: bool = False

    @property
    def free(self) -> bool:
        return self.repeat or (self.settled is not None and not self.settled.owed)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A bill in micro-dollars: sure ends, and within them what is expected, if anything is."""

    floor: int
    ceiling: int
    low: int | None = None
    expected: int | None = None
    high: int | None = None


def calls_for(
    prompts: Sequence[Sequence[Message]],
    price: Price | None,
    max_tokens: int,
    *,
    settled: Sequence[Settled | None] = (),
    repeats: Sequence[bool] = (),
) -> list[Call]:
    """Calls with the least and the most that each can take."""
    amounts: dict[tuple[int, int], tuple[int, int]] = {}  # prompts of one size cost the same
    calls = []
    for i, messages in enumerate(prompts):
        n_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
        n_least = n_bytes // MOST_BYTES_PER_TOKEN
        size = (n_bytes, len(messages))
        if size not in amounts:
            least = 0 if price is None else cost_microusd(_cheapest(price), n_least, 1)
            amounts[size] = (least, reserve_microusd(price, messages, max_tokens))
        calls.append(
            Call(
                n_bytes,
                *amounts[size],
                n_least + 1,
                prompt_token_bound(messages) + max_tokens,
                settled[i] if settled else None,
                bool(repeats and repeats[i]),
            )
        )
    return calls


def sure_bounds(
    calls: Sequence[Call],
    price: Price,
    limits: Limits,
    *,
    ordered: bool,
    room_microusd: int | None = None,
) -> tuple[Bounds, Bounds]:
    """The new money, and the whole charge, of `limits.queries` of `calls`: of the first if they are
    `ordered`, else of any. `room_microusd` is what the hard stop leaves for new money.
    """
    n = len(calls) if limits.queries is None else min(limits.queries, len(calls))
    n_least = n if limits.accepted is None else min(n, limits.accepted)
    calls = calls[:n] if ordered else calls
    room = None if room_microusd is None else max(0, room_microusd)
    unpaid = [c for c in calls if not c.free]
    ends = _least_at_limits(calls, price, limits, room)
    new = Bounds(
        floor=min([_sum(map(_least_new, calls), n_least, ordered), *(e.new for e in ends)]),
        ceiling=min(
            [
                _sum(map(_most_new, calls), n, ordered, largest=True),
                *_most_at_limits(
                    unpaid, price, limits, n, paid=_paid_first(calls) if ordered else 0
                ),
                *([] if room is None else [room]),
            ]
        ),
    )
    free = _sum(map(_most_free, calls), n, ordered, largest=True)
    whole = Bounds(
        floor=min([_sum(map(_least, calls), n_least, ordered), *(e.whole for e in ends)]),
        ceiling=min(
            [
                _sum(map(_most, calls), n, ordered, largest=True),
                *_most_at_limits(calls, price, limits, n, paid=0),
                *([] if room is None else [room + free]),
            ]
        ),
    )
    return new, whole


def n_affordable(calls: Sequence[Call], limits: Limits, *, ordered: bool) -> int:
    """How many of `calls` the limits can admit at the very most: each at the least it can cost."""
    n = len(calls) if limits.queries is None else min(limits.queries, len(calls))
    calls = calls[:n] if ordered else calls
    for limit, amount in ((limits.microusd, _least), (limits.tokens, _least_tokens)):
        if limit is not None:
            sizes = map(amount, calls)
            n = min(n, _n_within(sizes if ordered else sorted(sizes), limit))
    return n


@dataclass(frozen=True, slots=True)
class _End:
    """The least that has been charged, and newly paid, when a limit ends a buying."""

    whole: int
    new: int


def _least_at_limits(
    calls: Sequence[Call], price: Price, limits: Limits, room: int | None
) -> list[_End]:
    ends = []
    free = sum(map(_most_free, calls))
    if limits.microusd is not None:
        whole = max(0, limits.microusd - max(map(held_microusd, calls), default=0))
        ends.append(_End(whole, max(0, whole - free)))
    if limits.tokens is not None:
        free_tokens = sum(held_tokens(c) for c in calls if c.free or c.settled)
        tokens = limits.tokens - max(map(held_tokens, calls), default=0) - free_tokens
        least = _times(min(_kinds(price)), max(0, tokens))
        ends.append(_End(least, least))
    if room is not None:
        least = max(0, room - max(map(_most_new, calls), default=0))
        ends.append(_End(least, least))
    return ends


def _most_at_limits(
    calls: Sequence[Call], price: Price, limits: Limits, n: int, *, paid: int
) -> list[int]:
    """What no bill can pass by a limit, with `paid` of it charged before anything new is.

    Answers among `calls` that were settled at another price may have cost more a token.
    """
    caps = []
    if limits.microusd is not None:
        caps.append(max(0, limits.microusd - paid))
    if limits.tokens is not None:
        dearest = max(_kinds(price))
        more = sum(
            max(0, c.settled.microusd - _times(dearest, c.settled.n_tokens) + 1)
            for c in calls
            if c.settled
        )
        caps.append(_times(dearest, limits.tokens) + n + more)  # n: each call is rounded up
    return caps


def _paid_first(calls: Sequence[Call]) -> int:
    """What the calls before the first new one are charged."""
    paid = 0
    for call in calls:
        if call.settled is None or not call.free:
            break
        paid += call.settled.microusd
    return paid


def _least(call: Call) -> int:
    return call.settled.microusd if call.settled else call.least_microusd


def _most(call: Call) -> int:
    return call.settled.microusd if call.settled else call.most_microusd


def held_microusd(call: Call) -> int:
    """What admission asks room for: a recalled answer by the same rule as when it was bought."""
    if call.settled and call.settled.owed:
        return call.settled.microusd
    return max(call.most_microusd, _most(call))


def _least_new(call: Call) -> int:
    return 0 if call.free else _least(call)


def _most_new(call: Call) -> int:
    return 0 if call.free else _most(call)


def _most_free(call: Call) -> int:
    return _most(call) if call.free else 0


def _least_tokens(call: Call) -> int:
    return call.settled.n_tokens if call.settled else call.least_tokens


def held_tokens(call: Call) -> int:
    if call.settled and call.settled.owed:
        return call.settled.n_tokens
    return max(call.most_tokens, call.settled.n_tokens if call.settled else 0)


def _sum(amounts: Iterable[int], n: int, ordered: bool, *, largest: bool = False) -> int:
    """Of the first `n`, or of the n smallest or largest."""
    return sum((list(amounts) if ordered else sorted(amounts, reverse=largest))[:n])


def _n_within(amounts: Iterable[int], limit: int) -> int:
    n = 0
    for amount in amounts:
        limit -= amount
        if limit < 0:
            break
        n += 1
    return n


def _kinds(price: Price) -> list[float]:
    kinds = (price.input, price.output, price.cached, price.reasoning)
    return [k for k in kinds if k is not None]


def _cheapest(price: Price) -> Price:
    return Price(
        input=price.input if price.cached is None else min(price.input, price.cached),
        output=price.output if price.reasoning is None else min(price.output, price.reasoning),
    )


def _times(rate: float, tokens: int) -> int:
    return cost_microusd(Price(input=rate, output=0), tokens, 0)
