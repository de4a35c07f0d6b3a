"""Equal shares."""

import numpy as np

from bridgekd.selection.mixture import GroupEvidence, Mixture
from bridgekd.variants import NoOptions


def weigh_evenly(evidence: GroupEvidence, options: NoOptions) -> np.ndarray:
    """Return 1 for each group."""
    return np.ones(len(evidence.sizes))


MIXTURE = Mixture(
    name="even",
    title="Even",
    summary="Each group has the same share.",
    options=NoOptions,
    compute_weights=weigh_evenly,
)
