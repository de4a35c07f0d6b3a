"""The cost of a request and its upper bound, in integer micro-dollars.

Prices are dollars per million tokens, which equals micro-dollars per token. Arithmetic is exact: a
float is read as the decimal that was written. Costs are rounded up and limits down, so no sum of
costs is below the bill. Guarantee, for a server that respects `max_tokens` and a byte-level
tokenizer: `compute_cost_microusd <= compute_reserve_microusd`.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

from bridgekd.recipe import Price
from bridgekd.records import Message

# A byte-level tokenizer never makes more tokens than bytes. A chat template adds tokens that are
# not in the bytes: role and turn marks (about 5 tokens a message) and, for some models, a built-in
# system turn (20 to 80).
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 128


def _to_decimal(dollars: float) -> Fraction:
    return Fraction(repr(dollars))


def _get_rate(price: float | None, default: float) -> float:
    return default if price is None else price


def compute_cost_microusd(
    price: Price | None,
    n_prompt: int,
    n_completion: int,
    *,
    n_cached: int = 0,
    n_written: int | None = None,
    n_reasoning: int = 0,
) -> int:
    """Return the cost of one request, rounded up to the next micro-dollar; 0 without a price.

    Of the prompt tokens, `n_cached` were read from a cache and `n_written` of the others were
    written into it (None: unknown, so all of them count as written). Of the completion tokens,
    `n_reasoning` are reasoning. Each has its own rate if the price has one.
    >>> compute_cost_microusd(Price(input=2.5, output=10), 1000, 200)
    4500
    """
    if price is None:
        return 0
    n_cached, n_reasoning = min(n_cached, n_prompt), min(n_reasoning, n_completion)
    n_fresh, write_rate = n_prompt - n_cached, _get_rate(price.cache_write, price.input)
    if n_written is None:
        n_written, write_rate = n_fresh, max(write_rate, price.input)
    n_written = min(n_written, n_fresh)
    return ceil(
        _to_decimal(price.input) * (n_fresh - n_written)
        + _to_decimal(write_rate) * n_written
        + _to_decimal(_get_rate(price.cached_input, price.input)) * n_cached
        + _to_decimal(price.output) * (n_completion - n_reasoning)
        + _to_decimal(_get_rate(price.reasoning, price.output)) * n_reasoning
    )


def count_prompt_bytes(messages: Sequence[Message]) -> int:
    """Return the UTF-8 bytes of the texts of a prompt."""
    return sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)


def compute_max_prompt_tokens(messages: Sequence[Message]) -> int:
    """Return the maximum of billed prompt tokens: UTF-8 bytes plus the chat template's tokens."""
    return TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * len(messages) + count_prompt_bytes(messages)


def compute_reserve_microusd(
    price: Price | None, messages: Sequence[Message], max_tokens: int
) -> int:
    """Return the maximum cost of one request: every token at the highest rate that it can have."""
    if price is None:
        return 0
    highest = Price(
        input=max(price.input, price.cached_input or 0.0, price.cache_write or 0.0),
        output=max(price.output, price.reasoning or 0.0),
    )
    return compute_cost_microusd(highest, compute_max_prompt_tokens(messages), max_tokens)


def to_microusd(dollars: float) -> int:
    """Return a limit in dollars as micro-dollars, rounded down."""
    return floor(_to_decimal(dollars) * 1_000_000)


def to_microusd_rounded_up(dollars: float) -> int:
    """Return a cost in dollars as micro-dollars, rounded up."""
    return ceil(_to_decimal(dollars) * 1_000_000)


def format_microusd(amount_microusd: int) -> str:
    """Return micro-dollars as dollars, with at least two decimals and as many as needed.

    >>> format_microusd(1_500_000), format_microusd(-21)
    ('$1.50', '-$0.000021')
    """
    dollars, rest = divmod(abs(amount_microusd), 1_000_000)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_microusd < 0 else ''}${dollars:,}.{decimals}"
