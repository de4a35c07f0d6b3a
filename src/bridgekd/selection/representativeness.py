"""How far a selection is from the pool, compared with random selections of the same size.

Where picks crowd into a part of the pool, the model that learns from them is worse. These figures
show it before money is spent. They need no score, no model and no answer of the teacher.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bridgekd.rng import make_rng
from bridgekd.selection.diversity import normalize_rows
from bridgekd.selection.features import fit_whitening
from bridgekd.selection.strategies.typical import N_NEIGHBORS

N_DRAWS = 200
CONFIDENCE = 0.95  # of random selections have all figures within their limits
MAX_GROUPS = 200  # with more domains or answers, most of them have hardly any pick
_MAX_POOL, _MAX_PICKS, _MAX_REFERENCE = 10_000, 2_000, 1_000
_N_FEATURES = 256


@dataclass(frozen=True, slots=True)
class SelectionFigure:
    """One figure of a selection, and its limits for random selections. `low` is None for a
    distance, which may be smaller than that of random selections.
    """

    name: str
    value: float
    low: float | None
    high: float

    @property
    def is_outside(self) -> bool:
        """Whether the selection differs more from the pool than random selections do."""
        return self.value > self.high or (self.low is not None and self.value < self.low)


@dataclass(frozen=True, slots=True)
class SelectionCheck:
    """The figures of a selection of `n_selected` from `n_pool` questions."""

    n_selected: int
    n_pool: int
    figures: tuple[SelectionFigure, ...]

    @property
    def outside(self) -> tuple[SelectionFigure, ...]:
        """The figures outside their limits."""
        return tuple(figure for figure in self.figures if figure.is_outside)


def compare_with_random(
    is_selected: np.ndarray,
    groups: Mapping[str, np.ndarray],
    embeddings: np.ndarray | None,
    seed: int,
) -> SelectionCheck:
    """Return how a selection compares with 200 random ones.

    is_selected: bool [n]. groups: by title, the group of every question, [n]; the figure is the
    total variation 1/2 * sum over g of |share of the picks in g - share of the pool in g|, in
    [0, 1]. It is left out for fewer than 2 or more than MAX_GROUPS groups. embeddings: [n, d], a
    np.memmap is possible. Their figures are the kernel distance (MMD with a Gaussian on whitened
    embeddings of length 1, bandwidth sqrt(2), by 256 random Fourier features: Rahimi and Recht
    2007) and the mean typicality (1 / mean distance to the 20 nearest, as in `typical`). They use
    at most 10,000 questions and 2,000 picks. Each limit leaves out 5 % / number of figures of the
    random selections (Bonferroni).
    """
    rng = make_rng(seed, "random selections")
    drawn: list[tuple[str, float, np.ndarray, bool]] = []
    if 0 < is_selected.sum() < len(is_selected):
        for title, members in groups.items():
            codes = np.unique(members, return_inverse=True)[1]
            if 2 <= codes.max() + 1 <= MAX_GROUPS:
                drawn.append((title, *_compare_shares(is_selected, codes, rng), False))
        if embeddings is not None:
            drawn += _compare_places(is_selected, embeddings, rng)
    tail = (1 - CONFIDENCE) / max(1, len(drawn))
    return SelectionCheck(
        int(is_selected.sum()),
        len(is_selected),
        tuple(
            SelectionFigure(
                title,
                value,
                float(np.quantile(draws, tail / 2, method="lower")) if is_two_sided else None,
                float(
                    np.quantile(draws, 1 - (tail / 2 if is_two_sided else tail), method="higher")
                ),
            )
            for title, value, draws, is_two_sided in drawn
        ),
    )


def compute_total_variation(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the total variation of `counts` [..., g] from the shares of `sizes` [g], [...].

    >>> float(compute_total_variation(np.array([4, 0]), np.array([50, 50])))
    0.5
    """
    shares = counts / counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(shares - sizes / sizes.sum()).sum(axis=-1) / 2)


def _compare_shares(
    is_selected: np.ndarray, codes: np.ndarray, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    sizes = np.bincount(codes)
    counts = np.bincount(codes[is_selected], minlength=len(sizes))
    draws = rng.multivariate_hypergeometric(sizes, counts.sum(), N_DRAWS, method="marginals")
    return float(compute_total_variation(counts, sizes)), compute_total_variation(draws, sizes)


def _compare_places(
    is_selected: np.ndarray, embeddings: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, float, np.ndarray, bool]]:
    """Return the kernel distance and the typicality, of the picks and of the draws."""
    n = len(is_selected)
    rows = np.arange(0, n, -(-n // _MAX_POOL))
    picks = rng.permutation(np.flatnonzero(is_selected))[:_MAX_PICKS]
    n_picks = min(len(picks), len(rows))
    whitening = fit_whitening(embeddings)
    # One computation for both, so that the figure of a row does not depend on who asks for it.
    points = np.concatenate(
        [whitening.apply(np.asarray(embeddings[some])) for some in (rows, picks[:n_picks])]
    )
    points = normalize_rows(points)
    frequencies = rng.normal(size=(points.shape[1], _N_FEATURES)) / np.sqrt(2)
    phase = rng.uniform(0, 2 * np.pi, _N_FEATURES)
    features = np.sqrt(2 / _N_FEATURES) * np.cos(points @ frequencies + phase)
    typicality = _compute_typicality(points, len(rows))
    pool_mean = features[: len(rows)].mean(axis=0)
    is_drawn = np.zeros((N_DRAWS, len(rows)))
    for draw in is_drawn:
        draw[rng.permutation(len(rows))[:n_picks]] = 1 / n_picks
    distances = np.linalg.norm(is_drawn @ features[: len(rows)] - pool_mean, axis=1)
    distance = float(np.linalg.norm(features[len(rows) :].mean(axis=0) - pool_mean))
    own = float(typicality[len(rows) :].mean())
    return [
        ("kernel distance", distance, distances, False),
        ("typicality", own, is_drawn @ typicality[: len(rows)], True),
    ]


def _compute_typicality(points: np.ndarray, n_pool: int) -> np.ndarray:
    """Return 1 / mean distance of `points` [m, k] to their nearest among 1,000 of the first n_pool.

    A distance of 0 is the point itself, or its equal.
    """
    reference = points[np.arange(0, n_pool, -(-n_pool // _MAX_REFERENCE))]
    k = min(N_NEIGHBORS, len(reference) - 1)
    typicality = []
    for start in range(0, len(points), 1024):
        squares = np.maximum(2 - 2 * points[start : start + 1024] @ reference.T, 0)
        squares[squares < 1e-6] = np.inf
        nearest = np.sqrt(np.partition(squares, k - 1, axis=1)[:, :k])
        typicality.append(1 / nearest.mean(axis=1))
    return np.concatenate(typicality)
