"""Prices of teachers: the type of a price, and the dated table of published prices."""

from decimal import Decimal
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from bridgekd.recipe.field_types import Dollars, FrozenModel


class Price(FrozenModel):
    """Prices in dollars per million tokens.

    Attributes:
        input: Price of a prompt token.
        output: Price of a completion token.
        cached_input: Price of a prompt token read from the server's cache. Default: `input`.
        cache_write: Price of a prompt token written into that cache. Default: `input`.
        reasoning: Price of a reasoning token. Default: `output`.
        batch_factor: Factor on these prices, except `cached_input`, in a batch. Default: none.
        max_prompt_tokens: Longest prompt that has these prices. Default: no limit.
    """

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    reasoning: Dollars | None = None
    batch_factor: float | None = Field(None, gt=0, le=1)
    max_prompt_tokens: int | None = Field(None, ge=1, le=10**9)

    def for_transport(self, *, has_batch_price: bool) -> "Price":
        """Return the price that a transport is charged, with `batch_factor` applied and removed."""
        factor = self.batch_factor if has_batch_price else None
        scaled = {
            name: float(Decimal(repr(amount)) * Decimal(repr(factor)))
            for name in ("input", "output", "cache_write", "reasoning")
            if factor is not None and (amount := getattr(self, name)) is not None
        }
        return self.model_copy(update={"batch_factor": None, **scaled})


class PublishedPrice(FrozenModel):
    """A price from the package's table, the ISO date it was read on, and the page it is from."""

    price: Price
    read_on: str
    source: str


def find_published_price(url: str, model: str) -> PublishedPrice | None:
    """Return the published price of a model at an address, or None if the table has none.

    Names match exactly: a dated snapshot (`gpt-4o-2024-08-06`) can have another price than
    `gpt-4o`.
    """
    return read_price_table().get((urlsplit(url).hostname or "", model))


@cache
def read_price_table() -> dict[tuple[str, str], PublishedPrice]:
    """Return the package's price table by host and model."""
    from ruamel.yaml import YAML  # imported late because most commands need no published price

    text = Path(__file__).with_name("prices.yaml").read_text(encoding="utf-8")
    table = YAML(typ="safe", pure=True).load(text)
    prices = {}
    for provider in table["providers"].values():
        for model, row in provider["models"].items():
            source = table["sources"][row.pop("source")]
            prices[provider["host"], model] = PublishedPrice(
                price=Price(**row), read_on=str(source["read"]), source=source["table"]
            )
    return prices
