"""Facility location: the selection that best represents every question of the pool.

F(S) = alpha * sum over s in S of d_s / B + (1 - alpha) * mean over i of max over s in S of
sim(i, s), sim = (1 + cos) / 2; each part is in [0, 1]. F is monotone and submodular, so the greedy
selection has at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher 1978). Adding the
difficulty is ours.
"""

import math

import numpy as np
from pydantic import Field

from bridgekd.rng import make_rng
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy, WithAlpha

EPSILON = 0.05  # loss of the stochastic selection against 1 - 1/e, in expectation
_BLOCK_SIZE = 64


class FacilityLocationOptions(WithAlpha):
    """`max_exact`: pools with more rows use the stochastic selection."""

    max_exact: int = Field(20_000, ge=0)


def facility_location(
    pool: SelectionPool, n_selected: int, options: FacilityLocationOptions, seed: int
) -> Ranking:
    """Return the greedy selection by F; scores are gains in F.

    Exact up to `max_exact` rows, in float64 and lazily (Minoux 1978): a gain only falls, so a gain
    that was computed once is an upper bound; gains equal to 12 decimals go by id. For larger pools
    stochastic greedy (Mirzasoleiman et al. 2015): each pick is the best of n / B * ln(1 / EPSILON)
    rows drawn by the seed, and the mean is over a sample of max(max_exact, 4 B) rows, so the
    guarantee holds for the sample's F. The rest is ranked by alpha * d + (1 - alpha) * distance.
    """
    if len(pool) <= options.max_exact:
        rows, gains = _select_lazily(pool, n_selected, options.alpha)
    else:
        n_reference = max(options.max_exact, 4 * n_selected)
        drawn = make_rng(seed, "facility reference").permutation(len(pool))[:n_reference]
        reference = pool.embeddings[np.sort(drawn)]
        rows, gains = _select_stochastically(pool, reference, n_selected, options.alpha, seed)
    return rank_rest(pool, rows, gains, options.alpha)


def _select_lazily(
    pool: SelectionPool, n_selected: int, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    unit = _normalize(pool.embeddings)
    half = unit / 2
    own = alpha * pool.difficulty / max(1, n_selected)
    bound = own + (1 - alpha) * (unit @ half.mean(axis=0) + 0.5) + 1e-9  # the first gain, or more
    counted = np.full(len(pool), -1)  # number of picks when the bound was computed
    covered = np.full(len(pool), -0.5)
    rows, gains = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    for done in range(n_selected):
        while counted[best := int(np.argmax(bound))] != done:
            top = np.argpartition(-bound, min(_BLOCK_SIZE, len(pool) - 1))[:_BLOCK_SIZE]
            stale = np.union1d(top[(counted[top] != done) & (bound[top] > -np.inf)], [best])
            gain = _compute_gains(unit[stale] @ half.T, covered)
            bound[stale] = np.round(own[stale] + (1 - alpha) * gain, 12)
            counted[stale] = done
        rows[done], gains[done] = best, bound[best]
        bound[best] = -np.inf
        np.maximum(covered, half @ unit[best], out=covered)
    return rows, gains


def _select_stochastically(
    pool: SelectionPool, reference: np.ndarray, n_selected: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = make_rng(seed, "facility candidates")
    n_drawn = math.ceil(len(pool) / max(1, n_selected) * math.log(1 / EPSILON))
    own = alpha * pool.difficulty / max(1, n_selected)
    is_left = np.ones(len(pool), dtype=bool)
    half = reference / 2
    covered = np.full(len(reference), -0.5, dtype=np.float32)
    rows, gains = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    for done in range(n_selected):
        drawn = np.unique(rng.integers(len(pool), size=n_drawn))
        drawn = drawn[is_left[drawn]]
        if not len(drawn):
            drawn = np.flatnonzero(is_left)[:1]
        half_cosine = pool.embeddings[drawn] @ half.T
        gain = own[drawn] + (1 - alpha) * _compute_gains(half_cosine, covered)
        best = int(np.argmax(gain))
        rows[done], gains[done] = drawn[best], gain[best]
        is_left[drawn[best]] = False
        np.maximum(covered, half_cosine[best], out=covered)
    return rows, gains


def _normalize(embeddings: np.ndarray) -> np.ndarray:
    """Return rows of length 1 in float64: two rows that gain from each other alone tie exactly."""
    exact = embeddings.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(length > 0, length, 1))


def _compute_gains(half_cosine: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return how much each of k rows [k, m] would add to the mean over m references, [k].

    Both are similarities minus 1/2, so `covered` is -1/2 before the first pick.
    """
    gain = half_cosine - covered
    np.maximum(gain, 0, out=gain)
    return np.asarray(gain.mean(axis=1, dtype=np.float64))


STRATEGY = Strategy(
    name="facility_location",
    title="Facility location",
    summary="Picks greedily by alpha * difficulty + (1 - alpha) * how well the picks represent "
    "the pool.",
    paper="Nemhauser, Wolsey and Fisher 1978; Mirzasoleiman et al. 2015",
    options=FacilityLocationOptions,
    rank=facility_location,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_seed=True,
    is_nested=False,
)
