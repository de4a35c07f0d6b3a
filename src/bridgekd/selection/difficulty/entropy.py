"""The entropy of the probabilities of the choices or tokens."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions


def choice_entropy(log_likelihoods: NDArray[np.float64]) -> float:
    """Return -sum_c p(c) log p(c) / log C in [0, 1] over C choices.

    p is proportional to exp of `log_likelihoods` [C], the mean log-likelihood per token. Our
    reading of BRIDGE's "entropic difficulty". A single choice has entropy 0.
    >>> choice_entropy(np.log([0.5, 0.5])), choice_entropy(np.array([-1.0]))
    (1.0, 0.0)
    """
    n = len(log_likelihoods)
    return float(entropy(softmax(log_likelihoods)) / np.log(n)) if n > 1 else 0.0


def token_entropy(logits: Any) -> Any:
    """Return -sum_v p(v) log p(v) over the vocabulary in nats, [t], of `logits` [t, vocabulary]."""
    # Only methods of the tensor: this module does not import torch.
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


MEASURE = DifficultyMeasure(
    name="entropy",
    title="Entropy",
    summary="The entropy over the choices, or over the tokens of the model's own answer.",
    paper="arXiv 2512.20403",
    options=NoOptions,
    score_choices=choice_entropy,
    score_tokens=token_entropy,
)
