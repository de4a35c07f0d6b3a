"""How hard an example is, as a place among its pool."""

from collections import Counter
from collections.abc import Sequence

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


def option_entropy(log_likelihoods: np.ndarray) -> float:
    """-sum_c p(c) log p(c) / log C in [0, 1], p the renormalised likelihoods of C >= 2 options,
    given as mean log-likelihoods a token [C]. "Entropic difficulty" of arXiv 2512.20403, the
    formula a reading.
    """
    p = _probabilities(log_likelihoods)
    return float(-(p * np.log(np.maximum(p, 1e-300))).sum() / np.log(len(p)))


def option_margin(log_likelihoods: np.ndarray) -> float:
    """1 - (p_1 - p_2) in [0, 1] of the two likeliest options, as above. Ours (margin sampling)."""
    second, first = np.sort(_probabilities(log_likelihoods))[-2:]
    return float(1 - (first - second))


def n_distinct(answers: Sequence[str]) -> int:
    """How many different answers k samples gave: signal 1 of arXiv 2406.05322. All unreadable ones
    ("") are one answer.
    """
    return len(set(answers))


def vote_entropy(answers: Sequence[str]) -> float:
    """How a committee's answers spread, in [0, 1]: the entropy of its k >= 2 votes over log k
    (Dagan and Engelson 1995, query by committee). Unreadable answers vote alike.
    """
    shares = np.array(list(Counter(answers).values())) / len(answers)
    return float(max(0.0, -(shares * np.log(shares)).sum() / np.log(len(answers))))


def _probabilities(log_likelihoods: np.ndarray) -> np.ndarray:
    weights = np.exp(log_likelihoods - log_likelihoods.max())
    return np.asarray(weights / weights.sum())
