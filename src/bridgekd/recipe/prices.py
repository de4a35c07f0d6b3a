"""What a teacher charges: as the recipe says, or as a dated table in the package says."""

from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from bridgekd.recipe.field_types import Dollars, FrozenModel


class Price(FrozenModel):
    """Dollars per million tokens. What is left out costs what its kind costs: tokens read from the
    server's cache (`cached_input`) and written into it (`cache_write`) as input, reasoning as
    output.

    `batch_factor` is the factor on input and output of a transport that has a batch price. Above
    `max_prompt_tokens` the price does not hold.
    """

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    reasoning: Dollars | None = None
    batch_factor: float | None = Field(None, gt=0, le=1)
    max_prompt_tokens: int | None = Field(None, ge=1)

    def for_transport(self, *, has_batch_price: bool) -> "Price":
        """Return the price as it is charged on a transport, with no factor left to apply."""
        if not has_batch_price or self.batch_factor is None:
            return self.model_copy(update={"batch_factor": None})
        halved = {
            kind: _scale_price(amount, self.batch_factor)
            for kind in ("input", "output", "cache_write", "reasoning")
            if (amount := getattr(self, kind)) is not None
        }
        return self.model_copy(update={"batch_factor": None, **halved})


class PublishedPrice(FrozenModel):
    """A row of the package's table: the price, the date it is of and the table it was read from."""

    price: Price
    read_on: str  # ISO date
    source: str  # a published table with its version, or the provider's page


def find_published_price(url: str, model: str) -> PublishedPrice | None:
    """The table's row for a model at this address; None for one that it does not know.

    A dated snapshot (`gpt-4o-2024-08-06`) is not taken for its family: their prices have differed.
    """
    host, table = urlsplit(url).hostname, _table()
    for provider in table["providers"].values():
        if provider["host"] == host and model in provider["models"]:
            row = dict(provider["models"][model])
            source = table["sources"][row.pop("source")]
            return PublishedPrice(
                price=Price(**row), read_on=str(source["read"]), source=source["table"]
            )
    return None


@cache
def _table() -> dict[str, Any]:
    from ruamel.yaml import YAML  # late: most uses never look into the table

    text = Path(__file__).with_name("prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return table


def _scale_price(amount: float, factor: float) -> float:
    return float(Decimal(repr(amount)) * Decimal(repr(factor)))
