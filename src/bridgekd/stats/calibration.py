"""Compare confidences with the truth: a filter by uncalibrated confidence is worse than none."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

N_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidences compared with the truth.

    ece: expected calibration error in [0, 1] over N_BINS equal-width bins, weighted by their sizes
    (Naeini et al. 2015; Guo et al., arXiv 1706.04599). auroc: the probability that a correct row
    has a higher confidence than a wrong one, a tie counts half; 0.5 is uninformative, None if all
    rows are correct or all are wrong. bins: (mean confidence, fraction correct, rows) of every bin
    that is not empty, in order.
    """

    n: int
    ece: float
    auroc: float | None
    bins: tuple[tuple[float, float, int], ...]


def compute_calibration(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """Return the calibration of `confidence` [n] in [0, 1] against `correct` [n] bool.

    >>> compute_calibration(np.array([0.9, 0.9]), np.array([True, False])).ece
    0.4
    """
    n = len(confidence)
    bin_of = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    bins = tuple(
        (float(confidence[rows].mean()), float(correct[rows].mean()), int(rows.sum()))
        for rows in (bin_of == k for k in range(N_BINS))
        if rows.any()
    )
    ece = sum(size * abs(mean - accuracy) for mean, accuracy, size in bins) / max(n, 1)
    return Calibration(n, float(ece), _compute_auroc(confidence, correct), bins)


def _compute_auroc(confidence: np.ndarray, correct: np.ndarray) -> float | None:
    """Return the statistic of Mann and Whitney divided by the number of pairs."""
    n_correct = int(correct.sum())
    n_wrong = len(correct) - n_correct
    if not n_correct or not n_wrong:
        return None
    rank_sum = rankdata(confidence)[correct.astype(bool)].sum()
    return float((rank_sum - n_correct * (n_correct + 1) / 2) / (n_correct * n_wrong))


def select_confident(
    confidence: np.ndarray, *, threshold: float, n_kept: int | None = None
) -> np.ndarray:
    """Return which of [n] are kept: those of at least `threshold`, or the `n_kept` most confident.

    Ties are kept in their order.
    """
    if n_kept is None:
        return np.asarray(confidence >= threshold)
    kept = np.zeros(len(confidence), dtype=bool)
    kept[np.argsort(-confidence, kind="stable")[:n_kept]] = True
    return kept
