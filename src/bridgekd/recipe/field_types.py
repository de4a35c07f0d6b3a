"""What every section of the recipe is made of: amounts, names, dollars."""

import ipaddress
import math
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _parse_count_or_percent(value: object) -> int | str:
    """An amount of rows: a whole number, or a share such as `5%`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is neither a whole number nor a share such as '5%'")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is below 0")
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
    if not match or not 0 <= float(match[1]) <= 100:
        raise ValueError(f"{value!r} is neither a whole number nor a share from 0% to 100%")
    return f"{float(match[1]):g}%"


def _check_base_url(value: str) -> str:
    """A server's address, without a user, a key or a query."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("not an address such as https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address must hold no user or key, and no query; use api_key_env")
    return value


CountOrPercent = Annotated[int | str, BeforeValidator(_parse_count_or_percent)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]


def resolve_count(amount: int | str, n: int) -> int:
    """Rows that `amount` means for a pool of n: itself, or its share rounded up, never above n for
    a share.
    """
    if isinstance(amount, int):
        return amount
    return min(n, math.ceil(float(amount.rstrip("%")) * n / 100 - 1e-9))


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class FrozenModel(BaseModel):
    """A frozen part of the recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
