"""What the buying will cost, as an interval, before anything is sent.

Where the ledger already holds answers of the same model, the interval is a 95 % one from their
lengths. Where it holds none it is not a guess but two bounds: the least that the prompts alone can
cost and the most that the budget or the answers' limit allows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.config import Price
from bridgekd.core.admission import Limits
from bridgekd.core.costs import cost_microusd, reserve_microusd
from bridgekd.records import Message

N_ENOUGH = 20  # known answers from which lengths are estimated
NO_LIMITS = Limits()
MOST_BYTES_PER_TOKEN = 12  # the tokenizers in use stay below this on plain text


@dataclass(frozen=True, slots=True)
class Usage:
    """One known answer of the model: its prompt's size in bytes and what was billed."""

    n_prompt_bytes: int
    n_prompt_tokens: int
    n_completion_tokens: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """`n_queries` at most, and the interval of the bill in micro-dollars (None without a price)."""

    n_queries: int
    low_microusd: int | None
    high_microusd: int | None
    basis: str


def forecast(
    prompts: Sequence[Sequence[Message]],
    *,
    n_queries: int,
    price: Price | None,
    max_tokens: int,
    limits: Limits = NO_LIMITS,
    known: Sequence[Usage] = (),
) -> Forecast:
    """The bill for `n_queries` of `prompts`, of which nobody knows yet which will be chosen.

    Where a limit in dollars or tokens may end the buying before `n_queries`, the low end is what is
    spent by then at the least: the limit less the largest single reserve.
    """
    n = _n_affordable(prompts, n_queries, price, max_tokens, limits)
    if price is None:
        return Forecast(n, None, None, "the recipe names no price")
    least = _least(prompts, n, price, max_tokens, limits)
    most = _most(prompts, n, price, max_tokens, limits)
    if len(known) < N_ENOUGH:
        basis = "sure bounds, as no answer of this model is known yet"
        return Forecast(n, least, max(least, most), basis)
    low, high = _interval(prompts, n, price, known)
    low, high = (int(min(max(end, least), most)) for end in (low, high))
    return Forecast(n, low, high, f"95 % interval from {len(known)} known answers of this model")


def n_bytes(messages: Sequence[Message]) -> int:
    """UTF-8 bytes of all contents."""
    return sum(len(m.content.encode()) for m in messages)


def _interval(
    prompts: Sequence[Sequence[Message]], n: int, price: Price, known: Sequence[Usage]
) -> tuple[float, float]:
    per_byte = sum(u.n_prompt_tokens for u in known) / sum(u.n_prompt_bytes for u in known)
    asked = np.array([n_bytes(p) for p in prompts]) * per_byte * price.input
    answers = np.array([u.n_completion_tokens for u in known]) * price.output
    mean = n * (asked.mean() + answers.mean())
    variance = n * (asked.var() + answers.var()) + n * n * answers.var() / len(known)
    wide = 1.96 * math.sqrt(variance) + n  # n: every call is rounded up to a whole micro-dollar
    return max(0.0, mean - wide), mean + wide


def _n_affordable(
    prompts: Sequence[Sequence[Message]],
    n: int,
    price: Price | None,
    max_tokens: int,
    limits: Limits,
) -> int:
    """How many calls the limits can admit at the very most: each at the least it can cost."""
    if limits.tokens is not None:
        n = min(n, limits.tokens // max(1, min(map(_fewest_tokens, prompts), default=1)))
    if limits.microusd is not None and price is not None:
        cheapest = min((_cheapest(p, price) for p in prompts), default=1)
        n = min(n, limits.microusd // max(1, cheapest))
    return n


def _fewest_tokens(prompt: Sequence[Message]) -> int:
    return n_bytes(prompt) // MOST_BYTES_PER_TOKEN + 1


def _cheapest(prompt: Sequence[Message], price: Price) -> int:
    return cost_microusd(price, n_bytes(prompt) // MOST_BYTES_PER_TOKEN, 1)


def _least(
    prompts: Sequence[Sequence[Message]],
    n: int,
    price: Price,
    max_tokens: int,
    limits: Limits,
) -> int:
    if limits.tokens is not None:
        return 0
    every_call = sum(sorted(_cheapest(p, price) for p in prompts)[:n])
    if limits.microusd is None:
        return every_call
    largest = max((reserve_microusd(price, p, max_tokens) for p in prompts), default=0)
    return min(every_call, max(0, limits.microusd - largest))


def _most(
    prompts: Sequence[Sequence[Message]],
    n: int,
    price: Price,
    max_tokens: int,
    limits: Limits,
) -> int:
    reserves = sorted((reserve_microusd(price, p, max_tokens) for p in prompts), reverse=True)
    every_call = sum(reserves[:n])
    if limits.tokens is not None:
        dearest = max(price.input, price.output)
        every_call = min(
            every_call, cost_microusd(Price(input=0, output=dearest), 0, limits.tokens) + n
        )
    return every_call if limits.microusd is None else min(every_call, limits.microusd)
