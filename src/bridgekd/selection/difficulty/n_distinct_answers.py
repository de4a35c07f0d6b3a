"""The number of different answers that the assistant samples."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.measure import DifficultyMeasure


class DistinctAnswersOptions(BaseModel):
    """`n_samples`: texts of each question, at temperature 0.7."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(5, ge=2, le=64)


def count_distinct(answers: Sequence[str]) -> int:
    """Return the number of different answers, in canonical form; 0 for none.

    Student self-consistency, signal 1 of Teaching-Assistant-in-the-Loop (arXiv 2406.05322). All
    unreadable answers ("") count as one answer (our reading): an unreadable text does not show
    which answer the model intended.
    >>> count_distinct(["7", "", "8", ""])
    3
    """
    return len(set(answers))


MEASURE = DifficultyMeasure(
    name="n_distinct_answers",
    title="Distinct answers",
    summary="The number of different answers among several samples of the assistant.",
    paper="arXiv 2406.05322",
    options=DistinctAnswersOptions,
    score_answers=count_distinct,
    count_answers=lambda options: options.n_samples,
)
