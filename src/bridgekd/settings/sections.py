"""What each stage depends on: exactly what stands here is in a fingerprint.

A key that changes no result (the device, a server's address, concurrency) is left out on purpose; a
key that a stage does not use is left out so that changing it redoes only what depends on it.
"""

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from bridgekd.config import (
    Amount,
    Backend,
    Budget,
    Confidence,
    Fields,
    Lora,
    Price,
    Role,
    Section,
    TeacherPrompt,
    Train,
)
from bridgekd.variants import VariantSettings


class Answered(Section):
    """Settings of a stage that asks the assistant: where it writes, and where it gives
    log-probabilities, because a server's numbers are not those of this process.

    What happens in process is not named in the fingerprint.
    """

    backend: Backend = "transformers"
    scoring: Backend = "transformers"

    @model_serializer(mode="wrap")
    def _without_the_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = dict.fromkeys(("backend", "scoring"), "transformers")
        return {k: v for k, v in dump(self).items() if usual.get(k) != v}


class LoadPool(Section):
    fields: Fields
    answer_type: VariantSettings
    unlabelled: bool
    validation: Amount
    seed: int


class LoadTest(Section):
    fields: Fields


class WarmUp(Section):
    share: Amount
    train: Train
    lora: Lora | None
    max_new_tokens: int
    seed: int


class ScorePool(Answered):
    difficulty: VariantSettings
    max_new_tokens: int
    seed: int


class EmbedPool(Section):
    """The model is an input, and nothing else changes its embeddings."""


Part = tuple[float, float]  # of a budget, from one share of it to another
WHOLE: Part = (0.0, 1.0)


class Signals(Answered):
    samples: int
    max_new_tokens: int
    confidence: Confidence
    seed: int


class Select(Section):
    strategy: VariantSettings
    queries: Amount | None
    part: Part
    centre: bool
    seed: int


class Ask(Section):
    """How a teacher is asked: everything that reaches it, and its price."""

    provider: str
    model: str
    fields: dict[str, Any]  # the request beside its messages
    prompt: TeacherPrompt
    price: Price | None


class QueryTeacher(Section):
    ask: Ask
    budget: Budget
    part: Part
    accept: Literal["correct", "all"] | None  # what counts as accepted, where that is limited


class Check(Answered):
    keep: Literal["correct", "confident", "all"]
    confidence: Confidence | None  # None: the assistant is not asked


class TrainModel(Section):
    """The trainings on rationales, of the assistant and of the student."""

    train: Train
    form: Literal["joint", "two_task"]
    answer_weight: float
    lora: Lora | None
    max_new_tokens: int
    seed: int


class Annotate(Answered):
    keep: Literal["all", "correct", "confident", "consistent"]
    confidence: Confidence | None
    samples: int  # answers a question beside the greedy one; 0: none are drawn
    max_new_tokens: int
    seed: int


class TrainOnAnswers(Section):
    train: Train
    answer_weight: float
    lora: Lora | None
    max_new_tokens: int
    seed: int


class SampleRationales(Answered):
    keep: Literal["correct"] = "correct"
    samples: int
    max_new_tokens: int
    seed: int


class TrainWithMentor(TrainModel):
    share: float  # of the mentor's part in the loss
    temperature: float


class Instruct(Section):
    train: Train
    lora: Lora | None
    seed: int


class Predict(Answered):
    role: Role
    ask: Literal["explain", "answer"]
    max_new_tokens: int


class MeasureTeacher(Section):
    ask: Ask
    queries: Amount
    seed: int


class Evaluate(Section):
    """Seeds and budgets are not here: they are read off what each prediction was made from."""

    arms: tuple[str, ...]  # one name per prediction artifact, in order
    steps: str | None  # the checker of rationales' steps


class Report(Section):
    """The recipe and what was asked of it: with them it can be made again."""

    recipe: dict[str, object]
    methods: tuple[str, ...]
    n_seeds: int
    budgets: tuple[int | str, ...]  # in queries; empty: the recipe's own
