"""What a call costs and the most it can cost, in integer micro-dollars.

Prices are dollars per million tokens, which is micro-dollars per token; arithmetic is exact (a
float is taken as the decimal it is written as) and every rounding goes against the buyer, so that
no sum of costs is ever below the bill. What this keeps true: for a server that honours
`max_tokens` and a byte-level tokenizer, `cost_microusd <= reserve_microusd`.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

from bridgekd.recipe import Price
from bridgekd.records import Message

# A byte-level tokenizer never makes more tokens than bytes. What a chat template adds is not in
# the bytes: role and turn marks (about 5 tokens a message) and, for some models, a built-in
# system turn (20 to 80).
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 128


def _to_decimal(dollars: float) -> Fraction:
    return Fraction(repr(dollars))


def _get_rate(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


def compute_cost_microusd(
    price: Price | None,
    n_prompt: int,
    n_completion: int,
    *,
    n_cached: int = 0,
    n_written: int | None = None,
    n_reasoning: int = 0,
) -> int:
    """The bill of one call, rounded up to the next micro-dollar; 0 where there is no price.

    `n_cached` of the prompt's tokens were read from a cache, `n_written` of the others were put
    into it (None: nobody says, so that all of them count as such); `n_reasoning` of the
    completion's are reasoning. They have prices of their own where the price names them.
    """
    if price is None:
        return 0
    n_cached, n_reasoning = min(n_cached, n_prompt), min(n_reasoning, n_completion)
    n_fresh, written = n_prompt - n_cached, _get_rate(price.cache_write, price.input)
    if n_written is None:
        n_written, written = n_fresh, max(written, price.input)
    n_written = min(n_written, n_fresh)
    return ceil(
        _to_decimal(price.input) * (n_fresh - n_written)
        + _to_decimal(written) * n_written
        + _to_decimal(_get_rate(price.cached_input, price.input)) * n_cached
        + _to_decimal(price.output) * (n_completion - n_reasoning)
        + _to_decimal(_get_rate(price.reasoning, price.output)) * n_reasoning
    )


def compute_max_prompt_tokens(messages: Sequence[Message]) -> int:
    """The most tokens a prompt can be billed as: its UTF-8 bytes plus what a chat template adds."""
    n_bytes = sum(len(m.content.encode("utf-8", "surrogatepass")) for m in messages)
    return TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * len(messages) + n_bytes


def compute_reserve_microusd(
    price: Price | None, messages: Sequence[Message], max_tokens: int
) -> int:
    """The most one call can cost: the bound on its prompt and an answer of `max_tokens`, each token
    at the dearest it can be.
    """
    if price is None:
        return 0
    dearest = Price(
        input=max(price.input, price.cached_input or 0.0, price.cache_write or 0.0),
        output=max(price.output, price.reasoning or 0.0),
    )
    return compute_cost_microusd(dearest, compute_max_prompt_tokens(messages), max_tokens)


def to_microusd(dollars: float) -> int:
    """A limit in dollars as whole micro-dollars, rounded down so as never to widen it."""
    return floor(_to_decimal(dollars) * 1_000_000)


def to_microusd_rounded_up(dollars: float) -> int:
    """A cost in dollars as whole micro-dollars, rounded up."""
    return ceil(_to_decimal(dollars) * 1_000_000)


def format_microusd(amount_microusd: int) -> str:
    """Micro-dollars as people write them: `$1.50`, with as many decimals as are needed."""
    whole, part = divmod(abs(amount_microusd), 1_000_000)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_microusd < 0 else ''}${whole:,}.{decimals}"
