"""The loss that training reduces, by stratum: hard questions that can be learned."""

import numpy as np

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions


def average_by_stratum(reduction: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return the mean reduction of each question's stratum, [n], in nats.

    reduction: [n], the loss before minus the loss after training on other questions. strata: [n]
    integers from 0. A negative value says that training on others makes the stratum worse. All
    questions of a stratum are equally difficult: the strategy chooses among them.

    Reducible loss is that of RHO-LOSS (arXiv 2206.07137). Cross-fitting and the mean by stratum,
    which removes the noise of single questions, are ours.
    >>> average_by_stratum(np.array([3.0, 1.0, -1.0]), np.array([0, 0, 1])).tolist()
    [2.0, 2.0, -1.0]
    """
    size = np.bincount(strata)
    return np.asarray((np.bincount(strata, weights=reduction) / np.maximum(1, size))[strata])


MEASURE = DifficultyMeasure(
    name="reducible_loss",
    title="Reducible loss",
    summary="How much the loss of a domain or cluster falls when the assistant learns the gold "
    "answers of other questions.",
    paper="RHO-LOSS, arXiv 2206.07137, cross-fitted",
    options=NoOptions,
    score_reduction=average_by_stratum,
)
