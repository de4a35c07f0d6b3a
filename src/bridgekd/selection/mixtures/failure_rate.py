"""SwS: more of the domains in which the model is weak."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.mixture import GroupEvidence, Mixture


class FailureRateOptions(BaseModel):
    """`n_samples`: rationales of each question, at temperature 0.7. `threshold`: a question with
    a lower pass rate is a failure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(4, ge=2, le=64)
    threshold: float = Field(0.5, gt=0, le=1)


def weigh_by_failures(evidence: GroupEvidence, options: FailureRateOptions) -> np.ndarray:
    """Return the fraction of each group's questions whose pass rate is below the threshold.

    SwS (arXiv 2506.08989) divides new questions by the failure rates of domains. Its failures are
    questions below 0.5 in every epoch of a reinforcement learning run, with falling accuracy. The
    pass rate of samples is our reading.
    """
    assert evidence.pass_rates is not None
    return evidence.average((evidence.pass_rates < options.threshold).astype(float))


MIXTURE = Mixture(
    name="failure_rate",
    title="Failure rate",
    summary="Each group's share is in proportion to its fraction of questions that the model "
    "mostly fails.",
    paper="SwS, arXiv 2506.08989",
    options=FailureRateOptions,
    compute_weights=weigh_by_failures,
    count_samples=lambda options: options.n_samples,
)
