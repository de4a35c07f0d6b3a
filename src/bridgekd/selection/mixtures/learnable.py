"""More of the domains whose questions are neither always right nor always wrong."""

import numpy as np

from bridgekd.selection.difficulty.pass_rate import PassRateOptions
from bridgekd.selection.mixture import GroupEvidence, Mixture


def weigh_by_learnability(evidence: GroupEvidence, options: PassRateOptions) -> np.ndarray:
    """Return the sum of p (1 - p) over the questions of each group; p is the pass rate.

    Ours. It is the expected share if questions are drawn in proportion to p (1 - p). The sum keeps
    the shares of the pool where all groups are equally learnable, and a group that always fails
    gets nothing. The mean pass rate of a group does not show that: half of its questions may always
    fail and the other half never.
    """
    assert evidence.pass_rates is not None
    p = evidence.pass_rates
    return np.bincount(evidence.groups, weights=p * (1 - p))


MIXTURE = Mixture(
    name="learnable",
    title="Learnable",
    summary="Each group's share is in proportion to the sum of p (1 - p) of its questions' pass "
    "rates.",
    options=PassRateOptions,
    compute_weights=weigh_by_learnability,
    count_samples=lambda options: options.n_samples,
)
