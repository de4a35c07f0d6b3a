"""How accuracy grows with what a model learns from: a family of curves, their priors and logits.

acc(m) = c - (c - a) (1 + m / k)^-b: from a start a to a ceiling c, first over k rows, then by a
power law (after arXiv 1712.00409, with a start for m = 0). Where a prior is given, `z` columns are
standard normal. Priors are weak on purpose: in 95 of 100 draws the ceiling lies between 1.4 logits
below the start and 4.4 above it, k between an 80th of the budget and five times that, b between
0.26 and 1.9.
"""

import numpy as np
from scipy.special import expit, logit

CURVE = ("jump", "gain", "scale", "power")  # the four columns of a curve's z
SHARPEST = 0.001  # no accuracy is taken for nearer to 0 or 1 than this


def reached(
    m: np.ndarray | float,
    start: np.ndarray,
    ceiling: np.ndarray,
    scale: np.ndarray,
    power: np.ndarray,
) -> np.ndarray:
    """Accuracy after `m` rows; arguments are broadcast."""
    return np.asarray(ceiling - (ceiling - start) * (1 + m / scale) ** -power)


def curve(z: np.ndarray, before: np.ndarray, sizes: np.ndarray, *, far: float) -> np.ndarray:
    """Logits [draws, sizes] at `sizes` of curves with `z` [draws, 4] in the order of CURVE.

    `before` [draws] is the logit of the untaught model; learning the form of an answer may take the
    start a jump away from it. `far` is where the curve is asked about in the end: the scale's unit.
    """
    start = before + z[:, 0]
    ceiling = expit(start + 1.5 + 1.5 * z[:, 1])[:, None]
    scale = (0.25 * far * np.exp(1.5 * z[:, 2]))[:, None]
    power = (0.7 * np.exp(0.5 * z[:, 3]))[:, None]
    told = reached(np.asarray(sizes, dtype=float), expit(start)[:, None], ceiling, scale, power)
    return logits(told)


def logits(accuracy: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), of accuracies at least SHARPEST away from 0 and 1."""
    return np.asarray(logit(np.clip(accuracy, SHARPEST, 1 - SHARPEST)))
