"""The paid part of the recipe: the teacher, its requests, and the budget."""

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from bridgekd.recipe.field_types import (
    MAX_COUNT,
    MAX_TIMEOUT_S,
    BaseUrl,
    CountOrPercent,
    Dollars,
    FrozenModel,
    VariableName,
    contains_secret,
)
from bridgekd.recipe.prices import Price, find_published_price
from bridgekd.variants import VariantRef

MAX_COMPLETION_TOKENS = 10**7
TokenCount = Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)]
OPENAI_URL = "https://api.openai.com/v1"
# Reasoning models have another name for the token limit and reject `temperature`.
_REASONING_MODELS = re.compile(r"(?:.*/)?(o\d|gpt-[5-9])(?!.*-chat)")
_NO_TEMPERATURE_MODELS = re.compile(r"(?:.*/)?claude-(opus-4-[7-9]|(opus|sonnet|haiku)-[5-9])")
# Request fields that `extra` must not set: they have a key of their own or are not supported.
RESERVED_FIELDS = frozenset((
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stop", "response_format", "reasoning_effort", "n", "stream",
))  # fmt: skip


class TeacherPromptOptions(FrozenModel):
    """The prompt of the teacher.

    Attributes:
        system: System message. Default: a request to reason and to end with an `Answer:` line.
        template: User message with {question} and, if needed, {choices} and {answer}.
        few_shot: JSONL file of few-shot examples with question, rationale and answer.
        reveal_answer: Whether the teacher sees the gold answer.
    """

    system: str | None = None
    template: str | None = None
    few_shot: str | None = None
    reveal_answer: bool = False

    @model_validator(mode="after")
    def _check_placeholders(self) -> "TeacherPromptOptions":
        if self.template is not None and "{question}" not in self.template:
            raise ValueError(
                "The template has no {question}, so all requests would be equal. Add it."
            )
        if self.template is not None and "{answer}" in self.template and not self.reveal_answer:
            raise ValueError("The template has {answer}, which needs reveal_answer: true.")
        return self


class TeacherOptions(FrozenModel):
    """An OpenAI-compatible chat completions endpoint. A value of None is not sent.

    Attributes:
        provider: Name of the provider in the ledger. It is part of the request key.
        model: Name of the model, as the server expects it.
        base_url: Address of the server. Default: OpenAI.
        api_key_env: Environment variable with the API key. None: the server needs no key.
        transport: How requests reach the teacher: `live`, `batch`, `replay`, a plugin or a file.
        max_tokens: Maximum tokens of an answer, reasoning tokens included.
        max_tokens_field: Name of that limit in the request. `auto` chooses by model.
        temperature: Sampling temperature. Default: 0, or None for models that reject it.
        top_p: Nucleus sampling probability.
        seed: Sampling seed. Sample k of a question uses `seed + k`.
        n_samples: Queries per selected question, each for another answer. They count in the budget:
            30 queries with 3 samples buy 10 questions. Needs a temperature above 0.
        stop: Stop sequences.
        response_format: Response format, such as a JSON schema.
        reasoning_effort: Reasoning effort of a reasoning model.
        extra: More fields of the request body.
        price: Price of the model. Default: the published price, if the package knows it.
        expected_completion_tokens: Expected range of the mean answer length, used by `plan`.
        prompt: The prompt.
        max_concurrent_requests: Maximum number of open requests.
        max_requests_per_minute: Rate limit in requests.
        max_tokens_per_minute: Rate limit in tokens.
        timeout_s: Timeout of one attempt in seconds.
        max_attempts: Maximum number of attempts per request. A request that fails while others are
            answered gets one more.
    """

    provider: str = "openai"
    model: str
    base_url: BaseUrl | None = None
    api_key_env: VariableName | None = "OPENAI_API_KEY"
    transport: VariantRef = VariantRef(name="live")
    max_tokens: int = Field(512, ge=1, le=MAX_COMPLETION_TOKENS)
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    temperature: float | None = Field(0.0, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**62), le=2**62)
    n_samples: int = Field(1, ge=1, le=64)
    stop: tuple[str, ...] | None = None
    response_format: dict[str, JsonValue] | None = None
    reasoning_effort: str | None = None
    extra: dict[str, JsonValue] = Field({})
    price: Price | None = None
    expected_completion_tokens: tuple[TokenCount, TokenCount] | None = None
    prompt: TeacherPromptOptions = TeacherPromptOptions()
    max_concurrent_requests: int = Field(16, ge=1, le=512)
    max_requests_per_minute: float | None = Field(None, ge=0.01, le=MAX_COUNT)
    max_tokens_per_minute: float | None = Field(None, ge=0.01, le=10**12)
    timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    max_attempts: int = Field(6, ge=1, le=20)

    @property
    def effective_base_url(self) -> str:
        """Address that requests go to. OPENAI_BASE_URL and similar variables have no effect."""
        return self.base_url or OPENAI_URL

    @property
    def list_price(self) -> Price | None:
        """Price in the recipe, else the published price, without a factor of the transport."""
        if self.price is not None:
            return self.price
        published = find_published_price(self.effective_base_url, self.model)
        return published.price if published else None

    @model_validator(mode="before")
    @classmethod
    def _drop_rejected_temperature(cls, data: object) -> object:
        if isinstance(data, dict) and "temperature" not in data:
            model = str(data.get("model"))
            if _is_reasoning_model(model) or _NO_TEMPERATURE_MODELS.match(model):
                return data | {"temperature": None}
        return data

    @field_validator("extra")
    @classmethod
    def _check_extra_fields(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if reserved := sorted(RESERVED_FIELDS & value.keys()):
            raise ValueError(
                f"Remove {reserved[0]!r}. It has a recipe key of its own or is not supported."
            )
        if contains_secret(value):
            raise ValueError(
                "Remove the key or password. The ledger and the reports keep these fields. Put the "
                "key into the variable that api_key_env names."
            )
        return value

    @field_validator("expected_completion_tokens")
    @classmethod
    def _check_token_range(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("Give the lower end first, such as [150, 250].")
        return value

    def build_request_fields(self, sample_index: int) -> dict[str, object]:
        """Return the fields of a request except its messages. No value is None."""
        name = self.max_tokens_field
        if name == "auto":
            name = "max_completion_tokens" if _is_reasoning_model(self.model) else "max_tokens"
        fields = {
            name: self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": None if self.seed is None else self.seed + sample_index,
            "stop": None if self.stop is None else list(self.stop),
            "response_format": self.response_format,
            "reasoning_effort": self.reasoning_effort,
            "extra": self.extra or None,
        }
        return {k: v for k, v in fields.items() if v is not None}


class BudgetOptions(FrozenModel):
    """Limits of the purchase. It stops at the first limit that is reached, which is a normal end.

    Attributes:
        queries: Maximum number of queries: a number or a percentage of the pool.
        usd: Maximum cost in dollars.
        tokens: Maximum number of prompt and completion tokens.
        accepted_rationales: Number of rationales that pass the check. Needs another limit as well,
            because the number of answers that this takes is unknown.
    """

    queries: CountOrPercent | None = None
    usd: Dollars | None = None
    tokens: int | None = Field(None, ge=1, le=10**12)
    accepted_rationales: int | None = Field(None, ge=1, le=MAX_COUNT)

    @model_validator(mode="after")
    def _check_any_limit(self) -> "BudgetOptions":
        if self.queries is None and self.usd is None and self.tokens is None:
            raise ValueError("Give at least one of queries, usd and tokens.")
        if self.queries in (0, "0%"):
            raise ValueError("A budget of 0 queries buys nothing. Give at least 1.")
        if self.usd == 0:
            raise ValueError("A budget of 0 dollars buys nothing. Give more, or remove usd.")
        return self


def _is_reasoning_model(model: str) -> bool:
    return _REASONING_MODELS.match(model) is not None
