"""Whether a confidence means what it says: an uncalibrated filter is worse than none."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

N_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidences held against the truth.

    ece: expected calibration error in [0, 1] over N_BINS equal-width bins, weighted by their sizes
    (Naeini et al. 2015; Guo et al., arXiv 1706.04599). auroc: the chance that a right row is more
    confident than a wrong one, ties half; 0.5 tells nothing, None where all rows are alike. bins:
    (mean confidence, share right, rows) of every bin that is not empty, in order.
    """

    n: int
    ece: float
    auroc: float | None
    bins: tuple[tuple[float, float, int], ...]


def compute_calibration(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """`confidence` [n] in [0, 1] against `correct` [n] bool."""
    n = len(confidence)
    place = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = []
    for k in range(N_BINS):
        here = place == k
        if here.any():
            bins.append(
                (float(confidence[here].mean()), float(correct[here].mean()), int(here.sum()))
            )
    ece = sum(size * abs(said - true) for said, true, size in bins) / max(n, 1)
    return Calibration(n, float(ece), _auroc(confidence, correct), tuple(bins))


def _auroc(confidence: np.ndarray, correct: np.ndarray) -> float | None:
    """Mann and Whitney's statistic as a share."""
    n_right = int(correct.sum())
    n_wrong = len(correct) - n_right
    if not n_right or not n_wrong:
        return None
    ranks = rankdata(confidence)[correct.astype(bool)].sum()
    return float((ranks - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def select_confident(
    confidence: np.ndarray, *, at_least: float, n_kept: int | None = None
) -> np.ndarray:
    """Which of [n] are kept: all of at least `at_least`, or the `n_kept` most confident, equal ones
    in their order.
    """
    if n_kept is None:
        return np.asarray(confidence >= at_least)
    kept = np.zeros(len(confidence), dtype=bool)
    kept[np.argsort(-confidence, kind="stable")[:n_kept]] = True
    return kept
