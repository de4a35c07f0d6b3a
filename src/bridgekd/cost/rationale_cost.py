"""Forecast what one kept rationale costs, question by question, from the purchases so far.

The one idea: an answer is paid for whether it is kept or not, so a question costs its answer's
price divided by the probability that the answer is kept. Both are averages over similar questions.
"""

import numpy as np

PRIOR_ANSWERS = 5  # ours: a stratum with so many known answers is halfway to its own average


def forecast_rationale_costs(
    strata: np.ndarray, queried: np.ndarray, microusd: np.ndarray, is_kept: np.ndarray
) -> np.ndarray:
    """Return the forecast cost of a kept rationale for each question, [n], above 0.

    strata: [n] integers from 0, of similar questions. queried: [a] rows of the questions that were
    queried, with their cost in micro-dollars [a] and whether the answer was kept [a]. The unit is
    the cost of a kept rationale over all purchases. The forecast is cost / P(kept) by stratum; both
    are averages in which PRIOR_ANSWERS answers are the mean over all strata. Without a purchase,
    and for a teacher without a price if all strata are kept equally often, all forecasts are equal.
    Source: ours.
    >>> strata, queried = np.array([0, 0, 1, 1]), np.array([0, 2])
    >>> costs = forecast_rationale_costs(strata, queried, np.array([9, 1]), np.array([True, True]))
    >>> costs.round(3).tolist()
    [1.097, 1.097, 0.839, 0.839]
    """
    if not len(queried):
        return np.ones(len(strata))
    costs = microusd / microusd.mean() if microusd.any() else np.ones(len(queried))
    # One more answer, half of it kept, so that no probability is 0.
    kept = (is_kept.sum() + 0.5) / (len(queried) + 1)
    n_strata, group = int(strata.max()) + 1, strata[queried]
    n_known = np.bincount(group, minlength=n_strata) + PRIOR_ANSWERS
    cost = (np.bincount(group, costs, n_strata) + PRIOR_ANSWERS) / n_known
    p_kept = (np.bincount(group, is_kept, n_strata) + PRIOR_ANSWERS * kept) / n_known
    return np.asarray((cost / (p_kept / kept))[strata])
