"""The shares of the pool."""

import numpy as np

from bridgekd.selection.mixture import GroupEvidence, Mixture
from bridgekd.variants import NoOptions


def weigh_by_size(evidence: GroupEvidence, options: NoOptions) -> np.ndarray:
    """Return the number of questions in each group (proportional allocation, Neyman 1934)."""
    return evidence.sizes


MIXTURE = Mixture(
    name="as_is",
    title="As in the pool",
    summary="Each group has its share of the pool.",
    paper="Neyman 1934",
    options=NoOptions,
    compute_weights=weigh_by_size,
)
