"""The rows of a training as settings: gold answers, rationales, questions or instructions."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
)

from bridgekd.recipe import CountOrPercent, FrozenModel, SparseModel
from bridgekd.variants import VariantSettings

Half = Literal[0, 1]
HALVES: tuple[Half, Half] = (0, 1)


class AnswerRows(SparseModel):
    """Gold answers of the pool, or of its `half`: `size` sampled ones, or all if it is None."""

    source: Literal["answers"] = "answers"
    size: CountOrPercent | None
    answer_weight: float
    half: Half | None = None

    OPTIONAL = ("half",)


class RationaleRows(SparseModel):
    """Kept rationales, as rows of a target format. alpha: the weight of the wrong rationales of the
    same questions, which are unlearned; None: there are none.
    """

    source: Literal["rationales"] = "rationales"
    target_format: VariantSettings
    answer_weight: float
    alpha: float | None = None

    OPTIONAL = ("alpha",)

    @field_validator("target_format", mode="before")
    @classmethod
    def _parse_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_serializer("target_format", mode="wrap")
    def _dump_name(
        self, value: VariantSettings, serialize: SerializerFunctionWrapHandler
    ) -> object:
        # A format without options is its name, so that its trainings keep their fingerprints.
        is_name = not value.options and value.content is None
        return value.name if is_name else serialize(value)


class QuestionRows(FrozenModel):
    """Questions of the pool with a gold answer, which rewards the model's own texts."""

    source: Literal["questions"] = "questions"


class InstructionRows(FrozenModel):
    """A generic instruction set."""

    source: Literal["instructions"] = "instructions"


RowSettings = Annotated[
    AnswerRows | RationaleRows | QuestionRows | InstructionRows, Field(discriminator="source")
]
