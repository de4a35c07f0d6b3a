"""The margin between the two most likely choices or tokens."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions


def choice_margin(log_likelihoods: NDArray[np.float64]) -> float:
    """Return 1 - (p1 - p2) in [0, 1] of the two most likely choices; p as in `choice_entropy`.

    The margin of uncertainty sampling (Scheffer et al. 2001), reversed so that higher is harder. A
    single choice has 0.
    >>> round(choice_margin(np.log([0.1, 0.6, 0.3])), 12)
    0.7
    """
    if len(log_likelihoods) < 2:
        return 0.0
    second, first = np.sort(softmax(log_likelihoods))[-2:]
    return float(1 - (first - second))


def token_margin(logits: Any) -> Any:
    """Return 1 - (p1 - p2) of the two most likely tokens, [t], of `logits` [t, vocabulary]."""
    # Only methods of the tensor: this module does not import torch.
    first_two = logits.softmax(-1).topk(2).values
    return 1 - (first_two[:, 0] - first_two[:, 1])


MEASURE = DifficultyMeasure(
    name="margin",
    title="Margin",
    summary="How close the two most likely choices are, or the two most likely tokens of the "
    "model's own answer.",
    paper="Scheffer et al. 2001",
    options=NoOptions,
    score_choices=choice_margin,
    score_tokens=token_margin,
)
