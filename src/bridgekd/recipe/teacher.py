"""The paid part of the recipe: who is asked and how, and what may be bought."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bridgekd.recipe.field_types import BaseUrl, CountOrPercent, Dollars, FrozenModel
from bridgekd.recipe.prices import Price, find_published_price
from bridgekd.variants import VariantRef

OPENAI_URL = "https://api.openai.com/v1"
# Models that think first: their limit has another name, and they take no temperature.
_REASONING_MODELS = re.compile(r"(?:.*/)?(o\d|gpt-[5-9])(?!.*-chat)")
_NO_TEMPERATURE_MODELS = re.compile(r"(?:.*/)?claude-(opus-4-[7-9]|(opus|sonnet|haiku)-[5-9])")
RESERVED_FIELDS = frozenset((  # of a request: what else a server wants is `extra`
   
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stop", "response_format", "reasoning_effort", "n", "stream",
))  # fmt: skip


class TeacherPromptOptions(FrozenModel):
    """What the teacher is asked. `template` may use {question}, {choices} and, if revealed,
    {answer}.
    """

    system: str | None = None  # None: the built-in request to reason and end with an `Answer:` line
    template: str | None = None
    few_shot: str | None = None  # JSONL with question, rationale, answer: few-shot turns
    reveal_answer: bool = False

    @model_validator(mode="after")
    def _check_question_placeholder(self) -> "TeacherPromptOptions":
        if self.template is not None and "{question}" not in self.template:
            raise ValueError("template holds no {question}, so every request would be the same")
        if self.template is not None and "{answer}" in self.template and not self.reveal_answer:
            raise ValueError("template holds {answer}; that needs reveal_answer: true")
        return self


class TeacherOptions(FrozenModel):
    """Any OpenAI-compatible chat completions endpoint, or recordings of one.

    None leaves a setting of the request unsent. `seed` goes up by one with each sample of a
    question. `transport` names how requests reach the teacher: a module of `teacher/transports`,
    a plugin, or a file.
    """

    provider: str = "openai"
    model: str
    base_url: BaseUrl | None = None  # None: OPENAI_URL
    api_key_env: str | None = "OPENAI_API_KEY"  # None: the server wants no key
    transport: VariantRef = VariantRef(name="live")
    max_tokens: int = Field(
        512, ge=1, le=10**7
    )  # what an answer may have at most, reasoning included
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    temperature: float | None = Field(0.0, ge=0, le=2)  # unsent by default to models that think
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    extra: dict[str, Any] = Field({})  # further fields of the request's body
    price: Price | None = None  # None: as in the package's table, if it knows the model
    expected_completion_tokens: tuple[int, int] | None = (
        None  # a guess of the mean answer, for plan
    )
    prompt: TeacherPromptOptions = TeacherPromptOptions()
    max_concurrent_requests: int = Field(16, ge=1, le=512)
    max_requests_per_minute: float | None = Field(None, gt=0)
    max_tokens_per_minute: float | None = Field(None, gt=0)
    timeout_s: float = Field(120.0, gt=0)
    max_attempts: int = Field(6, ge=1, le=20)

    @property
    def effective_base_url(self) -> str:
        """Where requests go; what the environment says about it does not count."""
        return self.base_url or OPENAI_URL

    @property
    def list_price(self) -> Price | None:
        """The recipe's price, else the published one, before any factor of the transport; None if
        there is neither.
        """
        if self.price is not None:
            return self.price
        published = find_published_price(self.effective_base_url, self.model)
        return published.price if published else None

    @model_validator(mode="before")
    @classmethod
    def _drop_reasoning_temperature(cls, data: Any) -> Any:
        if isinstance(data, dict) and "temperature" not in data:
            model = str(data.get("model"))
            unsent = _is_reasoning_model(model) or _NO_TEMPERATURE_MODELS.match(model)
            return data | {"temperature": None if unsent else 0.0}
        return data

    @field_validator("extra")
    @classmethod
    def _check_extra_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RESERVED_FIELDS & value.keys()):
            raise ValueError(
                f"{taken[0]!r} cannot stand here: it has a key of its own or is not supported"
            )
        return value

    @field_validator("expected_completion_tokens")
    @classmethod
    def _check_token_range(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 1 <= value[0] <= value[1]:
            raise ValueError("give the lower end first, such as [150, 250]")
        return value

    def build_request_fields(self, sample_index: int) -> dict[str, Any]:
        """The fields of a request beside its messages, `extra` among them; none is None."""
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
    """What may be bought; the first limit to be reached ends the buying, which is a normal end.

    `accepted` ends it once so many rationales have passed the check; it needs another limit beside
    it, as nobody knows beforehand how many answers that takes.
    """

    queries: CountOrPercent | None = None
    usd: Dollars | None = None
    tokens: int | None = Field(None, ge=1)  # prompt and completion together
    accepted_rationales: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_any_limit(self) -> "BudgetOptions":
        if self.queries is None and self.usd is None and self.tokens is None:
            raise ValueError("a budget needs at least one of queries, usd, tokens")
        if self.queries in (0, "0%"):
            raise ValueError("a budget of 0 queries buys nothing; give at least 1")
        if self.usd == 0:
            raise ValueError("a budget of 0 dollars buys nothing; give more, or leave usd out")
        return self


def _is_reasoning_model(model: str) -> bool:
    return _REASONING_MODELS.match(model) is not None
