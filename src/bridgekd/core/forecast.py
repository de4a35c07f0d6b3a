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
from bridgekd.core.costs import cost_microusd, reserve_microusd
from bridgekd.records import Message

N_ENOUGH = 20  # known answers from which lengths are estimated
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
    limit_microusd: int | None,
    known: Sequence[Usage],
) -> Forecast:
    """The bill for `n_queries` of `prompts`, of which nobody knows yet which will be chosen."""
    if price is None:
        return Forecast(n_queries, None, None, "the recipe names no price")
    cap = math.inf if limit_microusd is None else limit_microusd
    if len(known) >= N_ENOUGH:
        low, high = _interval(prompts, n_queries, price, known)
        basis = f"95 % interval from {len(known)} known answers of this model"
    else:
        low = _sum_of_least(prompts, n_queries, price)
        high = _sum_of_most(prompts, n_queries, price, max_tokens)
        basis = "sure bounds, as no answer of this model is known yet"
    return Forecast(n_queries, int(min(low, cap)), int(min(high, cap)), basis)


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


def _sum_of_least(prompts: Sequence[Sequence[Message]], n: int, price: Price) -> int:
    least = (cost_microusd(price, n_bytes(p) // MOST_BYTES_PER_TOKEN, 1) for p in prompts)
    return sum(sorted(least)[:n])


def _sum_of_most(
    prompts: Sequence[Sequence[Message]], n: int, price: Price, max_tokens: int
) -> int:
    most = (reserve_microusd(price, p, max_tokens) for p in prompts)
    return sum(sorted(most, reverse=True)[:n])
