"""Whitened embeddings: the space in which questions are compared by their type.

The one idea: in the embeddings of a language model a few directions have nearly all of the
variance. Whitening gives each of the first principal directions the same spread, so that distances
count all of them.
"""

from dataclasses import dataclass

import numpy as np

from bridgekd.selection.diversity import normalize_rows
from bridgekd.selection.ranking import SelectionPool

N_DIRECTIONS = 16  # ours: a nearest neighbor in many more directions is hardly nearer than others
_MAX_FITTED = 20_000
_MIN_VARIANCE, _MIN_FRACTION = 1e-10, 1e-6  # of rows of length 1: smaller is rounding
_BLOCK_SIZE = 65_536


@dataclass(frozen=True, slots=True)
class Whitening:
    """A linear map to directions of variance 1. mean: [d]. directions: [d, k]."""

    mean: np.ndarray
    directions: np.ndarray

    def apply(self, embeddings: np.ndarray) -> np.ndarray:
        """Return `embeddings` [n, d] in the whitened space, float32 [n, k]."""
        starts = range(0, len(embeddings), _BLOCK_SIZE)
        blocks = [
            ((embeddings[start : start + _BLOCK_SIZE] - self.mean) @ self.directions)
            for start in starts
        ]
        k = self.directions.shape[1]
        return np.concatenate([np.empty((0, k)), *blocks]).astype(np.float32)


def fit_whitening(embeddings: np.ndarray) -> Whitening:
    """Return the map to the first 16 principal directions of `embeddings` [n, d].

    It is fitted on evenly spaced rows, 20,000 at most. Without variance the only direction is 0.
    """
    rows = embeddings[:: -(-len(embeddings) // _MAX_FITTED) or 1].astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(embeddings.shape[1])
    centered = rows - mean
    variance, directions = np.linalg.eigh(centered.T @ centered / max(1, len(rows)))
    variance, directions = variance[::-1][:N_DIRECTIONS], directions[:, ::-1][:, :N_DIRECTIONS]
    n_used = np.count_nonzero(variance > max(_MIN_VARIANCE, _MIN_FRACTION * variance[0]))
    if not n_used:
        return Whitening(mean, np.zeros((len(mean), 1)))
    return Whitening(mean, directions[:, :n_used] / np.sqrt(variance[:n_used]))


def whiten(pool: SelectionPool) -> np.ndarray:
    """Return the whitened embeddings of a pool with rows of length 1, float32 [n, k]."""
    return normalize_rows(fit_whitening(pool.embeddings).apply(pool.embeddings))
