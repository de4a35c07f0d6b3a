"""BalDistill: from the shares of the pool to equal shares while the budget is spent."""

import numpy as np

from bridgekd.selection.mixture import GroupEvidence, Mixture
from bridgekd.variants import NoOptions


def weigh_toward_even(evidence: GroupEvidence, options: NoOptions) -> np.ndarray:
    """Return (k/K) / |D| + (1 - k/K) c_d / N for stage k of K, from 0; k/K is the progress.

    arXiv 2406.13114. The paper counts c_d in a random sample of N questions and rounds each quota
    down; the share of the pool, and all N questions of a stage, are our readings.
    """
    sizes, k = evidence.sizes, evidence.progress
    n_groups = int(np.count_nonzero(sizes))
    return np.asarray(k / n_groups + (1 - k) * sizes / sizes.sum())


MIXTURE = Mixture(
    name="toward_even",
    title="Toward even",
    summary="The first purchase has the shares of the pool; later ones approach equal shares.",
    paper="BalDistill, arXiv 2406.13114",
    options=NoOptions,
    compute_weights=weigh_toward_even,
)
