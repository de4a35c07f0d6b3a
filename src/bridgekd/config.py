"""The recipe: one YAML file, frozen, with every unknown key refused and a default wherever one is
good.

Sections say what a person wants. `settings.py` cuts them into what each single stage depends on.
"""

import math
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

OPENAI_URL = "https://api.openai.com/v1"
AnswerKind = Literal["choice", "number", "label", "text"]


def _amount(value: object) -> int | str:
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


def _folder_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value):
        raise ValueError(f"{value!r} cannot name a run: use letters, digits, dots and dashes")
    return value


Amount = Annotated[int | str, BeforeValidator(_amount)]
RunName = Annotated[str, AfterValidator(_folder_name)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def count_of(amount: int | str, n: int) -> int:
    """Rows that `amount` means for a pool of n: itself, or its share rounded up, never above n for
    a share.
    """
    if isinstance(amount, int):
        return amount
    return min(n, math.ceil(float(amount.rstrip("%")) * n / 100 - 1e-9))


class Section(BaseModel):
    """A frozen part of the recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Fields(Section):
    """Which column of the user's file holds what."""

    question: str = "question"
    answer: str = "answer"
    id: str | None = None  # None: the row's number
    choices: str | None = None
    domain: str | None = None


class Data(Section):
    """Where the questions are: files (JSONL, CSV, Parquet) or a Hub data set id with a split after
    a colon.
    """

    train: str
    test: str
    fields: Fields = Fields()
    answer_kind: AnswerKind = "text"
    validation: Amount = "10%"  # set aside from train for early stopping, the same for every arm


class Price(Section):
    """Dollars per million tokens."""

    input: Dollars
    output: Dollars


class TeacherPrompt(Section):
    """What the teacher is asked. `template` may use {question}, {choices} and, if revealed,
    {answer}.
    """

    system: str | None = None  # None: the built-in request to reason and end with an `Answer:` line
    template: str | None = None
    examples: str | None = None  # JSONL with question, rationale, answer: few-shot turns
    reveal_answer: bool = False

    @model_validator(mode="after")
    def _asks_the_question(self) -> "TeacherPrompt":
        if self.template is not None and "{question}" not in self.template:
            raise ValueError("template holds no {question}, so every request would be the same")
        if self.template is not None and "{answer}" in self.template and not self.reveal_answer:
            raise ValueError("template holds {answer}; that needs reveal_answer: true")
        return self


class Teacher(Section):
    """Any OpenAI-compatible chat completions endpoint."""

    provider: str = "openai"
    model: str
    base_url: str | None = None  # None: OPENAI_URL
    api_key_env: str | None = "OPENAI_API_KEY"  # None: the server wants no key
    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    price: Price | None = None
    prompt: TeacherPrompt = TeacherPrompt()
    concurrency: int = Field(16, ge=1, le=512)
    timeout_s: float = Field(120.0, gt=0)
    max_tries: int = Field(6, ge=1, le=20)

    @property
    def url(self) -> str:
        """Where requests go; what the environment says about it does not count."""
        return self.base_url or OPENAI_URL

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            good = False
        if not good:
            raise ValueError("not an address such as https://host/v1")
        if parts.username or parts.password:
            raise ValueError("an address must hold no user or key; use api_key_env")
        return value


class Budget(Section):
    """What may be bought; the first limit to be reached ends the buying, which is a normal end."""

    queries: Amount | None = None
    usd: Dollars | None = None
    tokens: int | None = Field(None, ge=1)  # prompt and completion together

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.queries is None and self.usd is None and self.tokens is None:
            raise ValueError("a budget needs at least one of queries, usd, tokens")
        if self.queries in (0, "0%"):
            raise ValueError("a budget of 0 queries buys nothing; give at least 1")
        if self.usd == 0:
            raise ValueError("a budget of 0 dollars buys nothing; give more, or leave usd out")
        return self


class Lora(Section):
    """PEFT's LoRA; the defaults are its authors' for language models."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class Train(Section):
    """One training. `epochs` counts passes over the stage's reference size unless `updates` is
    given.
    """

    epochs: float = Field(3.0, gt=0)
    updates: int | None = Field(None, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(32, ge=1)  # sequences per optimiser update
    micro_batch: int | None = Field(None, ge=1)  # None: the whole batch at once
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_length: int = Field(1024, ge=8)  # tokens; longer rows are dropped and counted
    evaluations: int = Field(4, ge=1)  # how often the validation split is asked during the training

    def n_updates(self, n_reference: int) -> int:
        """Optimiser updates for `n_reference` rows per epoch."""
        return self.updates or max(1, math.ceil(n_reference * self.epochs / self.batch_size))


class Assistant(Section):
    """The mid-size local model (TA)."""

    model: str
    revision: str | None = None
    lora: Lora | None = None
    warm_up: Amount = "2%"
    warm_up_train: Train = Train()
    train: Train = Train()
    answer_weight: float = Field(1.0, ge=0)  # lambda of the two-part loss
    max_new_tokens: int = Field(256, ge=1)
    batch_size: int = Field(64, ge=1)  # sequences at once when scoring and writing


class Student(Section):
    """The tiny local model. `instruct` is the generic instruction set (JSONL, or a Hub id)."""

    model: str
    revision: str | None = None
    lora: Lora | None = None
    instruct: str | None = None
    instruct_train: Train = Train()
    train: Train = Train()
    form: Literal["joint", "two_task"] = "joint"
    answer_weight: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(256, ge=1)
    batch_size: int = Field(128, ge=1)


class Select(Section):
    """How the questions to pay for are chosen."""

    strategy: str = "bridge"
    difficulty: Literal["loss"] = "loss"
    alpha: float = Field(0.5, ge=0, le=1)
    centre: bool = True  # whether embeddings lose their mean before distances are taken


class Check(Section):
    """Which teacher rationales enter the training: those whose answer is the gold one, or all."""

    keep: Literal["correct", "all"] = "correct"


class Annotate(Section):
    """Which of the assistant's own rationales enter the training."""

    keep: Literal["all", "correct"] = "all"


class Evaluate(Section):
    """Measuring. Teacher queries on test questions are paid apart from the budget, 0 unless asked
    for.
    """

    teacher_queries: Amount = 0


class Recipe(Section):
    """The whole file."""

    name: RunName = "run"
    method: str = "bridge"
    data: Data
    teacher: Teacher
    budget: Budget
    assistant: Assistant
    student: Student
    select: Select = Select()
    check: Check = Check()
    annotate: Annotate = Annotate()
    evaluate: Evaluate = Evaluate()
    store: str = "runs"
    ledger: str = "ledger.db"
    hard_stop_usd: Dollars | None = None
    device: str = "auto"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _dollars_need_a_price(self) -> "Recipe":
        limited = self.budget.usd is not None or self.hard_stop_usd is not None
        if limited and self.teacher.price is None:
            raise ValueError(
                f"dollars are limited but the price of {self.teacher.model} is unknown; give "
                "teacher.price in dollars per million tokens (0 and 0 for a free server)"
            )
        return self
