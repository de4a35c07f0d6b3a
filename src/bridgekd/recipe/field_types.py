"""The field types of the recipe: counts, dollars, addresses, and the model class of all parts."""

import ipaddress
import math
import re
from decimal import Decimal
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

# What a recipe may ask for. Above these, a run would fail or never end after the purchase.
MAX_COUNT = 10**9  # questions and rows
MAX_USD = 10**9
MAX_TIMEOUT_S = 7 * 86_400.0
MAX_SEQUENCE_TOKENS = 2**20
MAX_BATCH_ROWS = 2**16

_SECRET_NAME = re.compile(
    r".*(apikey|secret|secretkey|privatekey|password|passwd|authorization|credentials|accesstoken"
    r"|authtoken|bearertoken|hftoken)|token|bearer"
)
_SECRET_VALUE = re.compile(r"^(bearer |sk-)\S{12}|\w://[^/\s]*@", re.IGNORECASE)


def _parse_count_or_percent(value: object) -> int | str:
    """Return a whole number as it is, and a percentage in one spelling (`5%`)."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= MAX_COUNT:
            raise ValueError(f"Give a number from 0 to {MAX_COUNT:,}.")
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if not match or float(match[1]) > 100:
        raise ValueError("Give a whole number, or a percentage from 0% to 100% such as 5%.")
    return f"{Decimal(f'{float(match[1]):g}'):f}%"  # without an exponent


def _check_token_limit(value: object) -> object:
    """Raise ValueError unless the value is `auto` or a number of tokens."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value == "auto" or (is_number and value in range(1, MAX_SEQUENCE_TOKENS + 1)):
        return value
    raise ValueError(f"Give auto, or a number from 1 to {MAX_SEQUENCE_TOKENS:,}.")


def _check_base_url(value: str) -> str:
    """Raise ValueError if an address has a user, a key or a query. No message repeats it."""
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("Give an address such as https://host/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("Give an address without a user, key or query. A key is in api_key_env.")
    return value


def _check_variable_name(value: str) -> str:
    """Raise ValueError for what is no name of a variable, such as the key itself. No message
    repeats it.
    """
    # A key of letters and digits alone could be a name, but no name looks like it.
    n_digits = sum(c.isdigit() for c in value)
    looks_like_key = len(value) >= 20 and n_digits >= 2 and value != value.upper()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or looks_like_key:
        raise ValueError(
            "Give the name of an environment variable that has the key, such as OPENAI_API_KEY, "
            "and not the key itself. The value is not shown."
        )
    return value


def contains_secret(value: object) -> bool:
    """Return whether JSON has a field for a key or password, a token, or an address with a user."""
    if isinstance(value, dict):
        names = (re.sub(r"[^a-z]", "", str(name).lower()) for name in value)
        return any(map(_SECRET_NAME.fullmatch, names)) or any(map(contains_secret, value.values()))
    if isinstance(value, list):
        return any(map(contains_secret, value))
    return isinstance(value, str) and _SECRET_VALUE.search(value) is not None


CountOrPercent = Annotated[int | str, BeforeValidator(_parse_count_or_percent)]
TokenLimit = int | Literal["auto"]
MaxNewTokens = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SEQUENCE_TOKENS)] | Literal["auto"],
    BeforeValidator(_check_token_limit),
]
Dollars = Annotated[float, Field(ge=0, le=MAX_USD)]
VariableName = Annotated[str, AfterValidator(_check_variable_name)]
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]


def resolve_count(amount: int | str, n: int) -> int:
    """Return the number of rows that an amount means for a pool of `n` rows.

    A percentage is rounded up and is at most `n`. A number is returned as it is.
    >>> resolve_count("5%", 30), resolve_count("0.0000000001%", 30), resolve_count(40, 30)
    (2, 1, 40)
    """
    if isinstance(amount, int):
        return amount
    percent = float(amount.rstrip("%"))
    return min(n, max(math.ceil(percent * n / 100 - 1e-9), int(percent > 0)))


def is_loopback(host: str) -> bool:
    """Return whether requests to `host` stay on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class FrozenModel(BaseModel):
    """A frozen model that rejects unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a key in a wrong place
    )


class SparseModel(FrozenModel):
    """Settings without the optional keys that have their default: a stage that does not use these
    keys keeps its fingerprint.
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _omit_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields = type(self).model_fields
        defaults = {key for key in self.OPTIONAL if getattr(self, key) == fields[key].default}
        return {k: v for k, v in serialize(self).items() if k not in defaults}
