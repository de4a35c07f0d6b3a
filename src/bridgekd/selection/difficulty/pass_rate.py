"""The pass rate of the untouched assistant."""

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.measure import DifficultyMeasure


class PassRateOptions(BaseModel):
    """`n_samples`: rationales of each question, at temperature 0.7."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(4, ge=2, le=64)


def compute_failure_rate(pass_rate: float) -> float:
    """Return 1 - p, in [0, 1].

    The pass rate with reasoning grades difficulty in arXiv 2504.11919 and 2504.17565. Asking the
    assistant, and before its warm-up on bare answers, is ours.
    """
    return 1 - pass_rate


MEASURE = DifficultyMeasure(
    name="pass_rate",
    title="Pass rate",
    summary="The fraction of the assistant's sampled rationales, before its warm-up, that end in a "
    "wrong answer.",
    paper="arXiv 2504.11919, 2504.17565",
    options=PassRateOptions,
    score_pass_rate=compute_failure_rate,
    count_answers=lambda options: options.n_samples,
)
