"""Coverage weighted by difficulty: MaxHerding, and UHerding with difficulty as uncertainty.

C(S) = (1/n) * sum over i of u_i * max over s in S of k(x_i, s), with k(x, s) = exp(-|x - s|^2 /
sigma^2) and u_i = 1 - alpha + alpha * d_i (Bae et al., arXiv 2407.12212 and 2412.20644). Difficulty
weighs what is covered, not the picks, so an outlier gains nothing from being hard. C is monotone
and submodular.
"""

import numpy as np
from pydantic import Field

from bridgekd.rng import sample_indices
from bridgekd.selection.diversity import normalize_rows
from bridgekd.selection.features import fit_whitening
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy, WithAlpha
from bridgekd.selection.submodular import select_lazily

_BLOCK_SIZE = 32  # rows whose kernel with 20,000 others fits the cache of a processor
_WIDTH_ROWS = 1000


class HerdingOptions(WithAlpha):
    """`max_exact`: in pools with more rows, a sample of max(max_exact, 4 B) stands for the pool."""

    max_exact: int = Field(20_000, ge=1, le=10**6)


def rank_herding(
    pool: SelectionPool, n_selected: int, options: HerdingOptions, seed: int
) -> Ranking:
    """Return the greedy selection by C; scores are gains in C. Gains equal to 12 decimals go by id.

    sigma is the mean distance of a question to its nearest one; with earlier purchases, which
    count as covered, the smallest positive distance among them. Our readings: whitened embeddings
    of length 1, difficulty in place of the calibrated uncertainty, and alpha. The rest is ranked by
    alpha * d + (1 - alpha) * distance.
    """
    whitening = fit_whitening(pool.embeddings)
    # In float64, two rows that cover the same tie exactly. In float32, large pools are faster.
    dtype = np.float64 if len(pool) <= options.max_exact else np.float32
    rows = normalize_rows(whitening.apply(pool.embeddings).astype(dtype))
    earlier = normalize_rows(whitening.apply(pool.already_queried).astype(dtype))
    n_reference = max(options.max_exact, 4 * n_selected)
    reference = np.array(sample_indices(seed, "herding reference", n=n_reference, of=len(pool)))
    weight = (1 - options.alpha + options.alpha * pool.difficulty[reference]) / len(reference)
    targets, sigma = rows[reference], compute_width(rows, earlier)
    weight, covered = weight.astype(dtype), np.zeros(len(reference), dtype=dtype)
    for start in range(0, len(earlier), _BLOCK_SIZE):
        block = compute_kernel(earlier[start : start + _BLOCK_SIZE], targets, sigma)
        np.maximum(covered, block.max(axis=0), out=covered)

    def compute_gains(picks: np.ndarray) -> np.ndarray:
        gain = compute_kernel(rows[picks], targets, sigma)
        gain -= covered
        gain = np.maximum(gain, 0, out=gain) @ weight
        return np.asarray(np.round(gain.astype(np.float64), 12))

    def add(pick: int) -> None:
        np.maximum(covered, compute_kernel(rows[pick : pick + 1], targets, sigma)[0], out=covered)

    blocks = np.split(np.arange(len(pool)), range(_BLOCK_SIZE, len(pool), _BLOCK_SIZE))
    bound = np.concatenate([compute_gains(block) for block in blocks])
    picks, gains = select_lazily(bound, n_selected, compute_gains, add)
    return rank_rest(pool, picks, gains, options.alpha)


def compute_kernel(rows: np.ndarray, others: np.ndarray, sigma: float) -> np.ndarray:
    """Return exp(-|a - b|^2 / sigma^2) of `rows` [r, d] and `others` [o, d] of length 1: [r, o]."""
    scale = rows.dtype.type(2 / sigma**2)
    exponent = (rows * scale) @ others.T
    exponent -= scale
    return np.asarray(np.exp(np.minimum(exponent, 0, out=exponent), out=exponent))


def compute_width(rows: np.ndarray, earlier: np.ndarray) -> float:
    """Return sigma for a pool `rows` [n, d] after the purchases of `earlier` [a, d]; 1 if all
    distances are 0.

    The mean is over 1,000 evenly spaced rows at most.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(earlier) > 1:
        distance = NearestNeighbors(n_neighbors=1).fit(earlier).kneighbors()[0]
        distance = distance[distance > 1e-6]
        return float(distance.min()) if len(distance) else 1.0
    if len(rows) < 2:
        return 1.0
    sample = rows[:: -(-len(rows) // _WIDTH_ROWS)]
    distance = NearestNeighbors(n_neighbors=2).fit(rows).kneighbors(sample)[0][:, 1]
    return float(distance.mean()) or 1.0


STRATEGY = Strategy(
    name="herding",
    title="Weighted coverage",
    summary="Picks greedily what covers most of the pool, where hard questions count more.",
    paper="MaxHerding arXiv 2407.12212, UHerding arXiv 2412.20644",
    options=HerdingOptions,
    rank=rank_herding,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_seed=True,
)
