"""How hard an example is, as a place among its pool."""

import numpy as np
from scipy.stats import rankdata

from bridgekd.errors import BadInput


def rank_normalise(difficulty: np.ndarray) -> np.ndarray:
    """Places of `difficulty` [n] in its pool as float64 in [0, 1], 1 the hardest, ties their mean
    place.

    A reading: BRIDGE combines difficulty with diversity and does not say on which scale; ranks make
    the two comparable whatever the assistant's losses look like. Raises BadInput on a value that is
    no number.
    """
    if not np.isfinite(difficulty).all():
        bad = int(np.flatnonzero(~np.isfinite(difficulty))[0])
        raise BadInput(
            f"the assistant's loss for row {bad} of the pool is {difficulty[bad]}; "
            "its training diverged: lower assistant.warm_up_train.learning_rate"
        )
    if len(difficulty) < 2:
        return np.zeros(len(difficulty))
    return np.asarray((rankdata(difficulty) - 1) / (len(difficulty) - 1))
