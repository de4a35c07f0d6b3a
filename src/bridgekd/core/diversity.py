"""How far questions lie from one another: v(x | S) = min over s in S of (1 - cos(e_x, e_s)) / 2, in
[0, 1].

The one idea: a float32 matrix product finds who may be near, float64 row by row says how near. So a
distance depends on its two rows alone, never on the block they were in, equal rows have equal
distances, and no more than a block of rows against a block of picks is ever in memory.
"""

from typing import NamedTuple

import numpy as np

ROUGH = 1e-5  # what a float32 product of two unit rows may be off by, with room to spare
NOBODY, EARLIER = -1, -2
_ROWS, _PICKS = 4096, 1024


class Nearest(NamedTuple):
    """For each row of a pool: `distance` [n] float64 to its nearest pick, 1 where there is none,
    and `pick` [n], that pick's place in the order of picking, NOBODY where there is none and
    EARLIER where it is from an earlier round.
    """

    distance: np.ndarray
    pick: np.ndarray


def nobody(n: int) -> Nearest:
    """Where every row is before the first pick."""
    return Nearest(np.ones(n), np.full(n, NOBODY))


def exact_distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(1 - cos) / 2 of `some` [k, d] to `others` [k, d], or to one row [d]: float64 [k] in [0, 1].

    Equal pairs give equal bits, equal rows of length 1 give 0, which float32 lengths alone do not.
    """
    a = np.ascontiguousarray(some, dtype=np.float64)
    b = np.ascontiguousarray(np.broadcast_to(others, a.shape), dtype=np.float64)
    distance = np.asarray(np.clip((1 - np.einsum("ij,ij->i", a, b)) / 2, 0, 1))
    close = np.flatnonzero(distance < ROUGH)
    distance[close[(a[close] == b[close]).all(axis=1)]] = 0
    return distance


def distances_to(embeddings: np.ndarray, row: int) -> np.ndarray:
    """(1 - cos) / 2 of every row of L2-normalised `embeddings` [n, d] to one of them: float32 [n]
    in [0, 1].
    """
    return np.asarray(np.clip((1 - embeddings @ embeddings[row]) / 2, 0, 1))


def bring_near(known: Nearest, embeddings: np.ndarray, picks: np.ndarray, first: int) -> None:
    """Updates `known` in place by `picks` [k, d], which are number `first` and on.

    Of two picks that are equally near up to float32 either may be named; the distance is then off
    by no more than that.
    """
    for start in range(0, len(embeddings), _ROWS):
        block = embeddings[start : start + _ROWS]
        here = Nearest(*(column[start : start + _ROWS] for column in known))
        for at in range(0, len(picks), _PICKS):
            part = picks[at : at + _PICKS]
            cosine = block @ part.T
            near = _may_be_nearer(here, (1 - cosine.max(axis=1)) / 2)
            best = cosine[near].argmax(axis=1)
            _settle(here, near, exact_distances(block[near], part[best]), first + at + best)


def bring_near_one(known: Nearest, embeddings: np.ndarray, pick: np.ndarray, number: int) -> None:
    """`bring_near` for a single pick [d]."""
    near = _may_be_nearer(known, (1 - embeddings @ pick) / 2)
    number_of = np.full(len(near), number)
    _settle(known, near, exact_distances(embeddings[near], pick), number_of)


def nearest_picks(embeddings: np.ndarray, picks: np.ndarray) -> Nearest:
    """For each of `embeddings` [n, d] the nearest of `picks` [k, d]: n * k * d multiplications."""
    found = nobody(len(embeddings))
    bring_near(found, embeddings, picks, 0)
    return found


def nearest_earlier(picks: np.ndarray) -> Nearest:
    """For each of `picks` [k, d] the nearest of those before it."""
    found = nobody(len(picks))
    for start in range(0, len(picks), _PICKS):
        block = picks[start : start + _PICKS]
        cosine = block @ picks[: start + len(block)].T
        later = (
            np.arange(start + len(block))[None, :] >= np.arange(start, start + len(block))[:, None]
        )
        cosine[later] = -np.inf
        rows = np.arange(1 if start == 0 else 0, len(block))
        best = cosine[rows].argmax(axis=1)
        found.distance[start + rows] = exact_distances(block[rows], picks[best])
        found.pick[start + rows] = best
    return found


def coverage(embeddings: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Mean and largest distance of the pool to its nearest pick: the two figures that judge a
    choice.

    Exact at any size, by blocks; what `rank` gives carries these distances already.
    """
    distance = nearest_picks(embeddings, embeddings[chosen]).distance
    return float(distance.mean()), float(distance.max())


def centred(embeddings: np.ndarray) -> np.ndarray:
    """`embeddings` [n, d] without their mean, each row of length 1 again (a zero row stays zero).

    Ours. Mean-pooled hidden states of a language model share one large direction (Mu and Viswanath,
    arXiv 1702.01417; Ethayarajh, arXiv 1909.00512), so that all distances are near 0 and diversity
    would not count beside a difficulty in [0, 1].
    """
    moved = np.subtract(embeddings, embeddings.mean(axis=0, keepdims=True), dtype=np.float32)
    for start in range(0, len(moved), _ROWS):
        block = moved[start : start + _ROWS]
        length = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(length > 0, length, 1)
    return np.asarray(moved)


def whitened(embeddings: np.ndarray) -> np.ndarray:
    """`embeddings` [n, d] centred, every direction brought to the same spread, each row of length 1
    again: no direction counts more because the model uses it more.

    Ours. As for sentence embeddings (Su et al., arXiv 2103.15316), with the covariance shrunk
    towards a sphere as far as n rows leave it unknown (OAS, Chen et al. 2010,
    doi:10.1109/TSP.2010.2053029). A zero row stays zero.
    """
    n, d = embeddings.shape
    mean = embeddings.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, _ROWS):
        block = embeddings[start : start + _ROWS] - mean
        covariance += block.T @ block
    spread, axes = np.linalg.eigh(covariance / max(n, 1))
    spread = shrunk(np.clip(spread, 0, None), n)
    scale = (axes / np.sqrt(np.where(spread > 0, spread, 1))).astype(np.float32)
    moved = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, _ROWS):
        block = moved[start : start + _ROWS]
        block[:] = (embeddings[start : start + _ROWS] - mean).astype(np.float32) @ scale
        length = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(length > 0, length, 1)
    return moved


def shrunk(spread: np.ndarray, n: int) -> np.ndarray:
    """Eigenvalues [d] of a covariance over `n` rows, shrunk towards their mean by OAS."""
    d, mean, square = len(spread), float(spread.mean()), float((spread**2).mean())
    apart = (n + 1) * (square - mean**2)
    share = 1.0 if apart <= 0 else min(1.0, (square + d * mean**2) / apart)
    return np.asarray((1 - share) * spread + share * mean)


def _may_be_nearer(known: Nearest, rough: np.ndarray) -> np.ndarray:
    return np.flatnonzero((rough < known.distance + ROUGH) | (known.pick == NOBODY))


def _settle(known: Nearest, rows: np.ndarray, distance: np.ndarray, number: np.ndarray) -> None:
    closer = (distance < known.distance[rows]) | (known.pick[rows] == NOBODY)
    known.distance[rows[closer]] = distance[closer]
    known.pick[rows[closer]] = number[closer]
