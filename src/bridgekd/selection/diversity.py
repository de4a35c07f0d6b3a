"""Distances between questions: v(x | S) = min over s in S of (1 - cos(e_x, e_s)) / 2, in [0, 1].

The one idea: a float32 matrix product finds the candidates for the nearest row. Their distances
are then computed in float64, row by row. So a distance depends on its two rows only and not on
the block they were in, equal rows have equal distances, and memory never holds more than one
block of rows and one block of picks.
"""

from typing import NamedTuple

import numpy as np

DISTANCE_TOLERANCE = 1e-5  # above the error of a float32 product of two rows of length 1
NO_PICK, EARLIER_PURCHASE = -1, -2
_ROWS, _PICKS = 4096, 1024


class Nearest(NamedTuple):
    """The nearest pick of every row of a pool.

    distance: [n] float64, 1 if there is no pick. pick: [n], its position in the order of picking;
    NO_PICK if there is none, EARLIER_PURCHASE if it is from an earlier purchase.
    """

    distance: np.ndarray
    pick: np.ndarray


def make_empty_nearest(n: int) -> Nearest:
    """Return the state of `n` rows before the first pick."""
    return Nearest(np.ones(n), np.full(n, NO_PICK))


def compute_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (1 - cos) / 2 of `rows` [k, d] to `others` [k, d] or [d]: float64 [k] in [0, 1].

    All rows have length 1. Equal pairs have bitwise equal distances. Equal rows have distance 0,
    which the rounded lengths of float32 rows alone do not guarantee.
    >>> compute_distances(np.eye(2), np.array([1.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    a = np.ascontiguousarray(rows, dtype=np.float64)
    b = np.ascontiguousarray(np.broadcast_to(others, a.shape), dtype=np.float64)
    distance = np.asarray(np.clip((1 - np.einsum("ij,ij->i", a, b)) / 2, 0, 1))
    close = np.flatnonzero(distance < DISTANCE_TOLERANCE)
    distance[close[(a[close] == b[close]).all(axis=1)]] = 0
    return distance


def update_nearest(
    nearest: Nearest, embeddings: np.ndarray, picks: np.ndarray, first_position: int
) -> None:
    """Update `nearest` in place by new `picks` [k, d], whose positions start at `first_position`.

    If two picks are equally near in float32, `nearest` may name either of them. The distance is
    then wrong by less than DISTANCE_TOLERANCE.
    """
    for row in range(0, len(embeddings), _ROWS):
        block = embeddings[row : row + _ROWS]
        current = Nearest(*(column[row : row + _ROWS] for column in nearest))
        for start in range(0, len(picks), _PICKS):
            chunk = picks[start : start + _PICKS]
            cosine = block @ chunk.T
            near = _find_candidates(current, (1 - cosine.max(axis=1)) / 2)
            best = cosine[near].argmax(axis=1)
            distance = compute_distances(block[near], chunk[best])
            _set_exact(current, near, distance, first_position + start + best)


def update_nearest_one(
    nearest: Nearest, embeddings: np.ndarray, pick: np.ndarray, position: int
) -> None:
    """Update `nearest` in place by one new pick [d]."""
    near = _find_candidates(nearest, (1 - embeddings @ pick) / 2)
    distance = compute_distances(embeddings[near], pick)
    _set_exact(nearest, near, distance, np.full(len(near), position))


def find_nearest_picks(embeddings: np.ndarray, picks: np.ndarray) -> Nearest:
    """Return the nearest of `picks` [k, d] for each of `embeddings` [n, d], in O(n k d)."""
    nearest = make_empty_nearest(len(embeddings))
    update_nearest(nearest, embeddings, picks, 0)
    return nearest


def find_nearest_earlier(picks: np.ndarray) -> Nearest:
    """Return for each of `picks` [k, d] the nearest of the picks before it."""
    nearest = make_empty_nearest(len(picks))
    for start in range(0, len(picks), _PICKS):
        block = picks[start : start + _PICKS]
        cosine = block @ picks[: start + len(block)].T
        positions = np.arange(start + len(block))
        cosine[positions[None, :] >= positions[start:, None]] = -np.inf
        rows = np.arange(1 if start == 0 else 0, len(block))
        best = cosine[rows].argmax(axis=1)
        nearest.distance[start + rows] = compute_distances(block[rows], picks[best])
        nearest.pick[start + rows] = best
    return nearest


def center_embeddings(embeddings: np.ndarray) -> np.ndarray:
    """Return `embeddings` [n, d] minus their mean, with rows as in `normalize_rows`.

    Our addition to BRIDGE. Mean-pooled hidden states of a language model share one large direction
    (Mu and Viswanath, arXiv 1702.01417; Ethayarajh, arXiv 1909.00512). With it all distances are
    near 0, so difficulty alone would decide the selection.
    >>> center_embeddings(np.array([[3.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    centered = np.subtract(embeddings, embeddings.mean(axis=0, keepdims=True), dtype=np.float32)
    for start in range(0, len(centered), _ROWS):
        centered[start : start + _ROWS] = normalize_rows(centered[start : start + _ROWS])
    return np.asarray(centered)


def normalize_rows(rows: np.ndarray) -> np.ndarray:
    """Return `rows` [n, d] scaled to length 1; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))


def _find_candidates(nearest: Nearest, rough: np.ndarray) -> np.ndarray:
    is_near = rough < nearest.distance + DISTANCE_TOLERANCE
    return np.flatnonzero(is_near | (nearest.pick == NO_PICK))


def _set_exact(nearest: Nearest, rows: np.ndarray, distance: np.ndarray, pick: np.ndarray) -> None:
    closer = (distance < nearest.distance[rows]) | (nearest.pick[rows] == NO_PICK)
    nearest.distance[rows[closer]] = distance[closer]
    nearest.pick[rows[closer]] = pick[closer]
