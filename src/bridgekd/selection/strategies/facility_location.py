"""Facility location: the selection that best represents every question of the pool.

F(S) = alpha * sum over s in S of d_s / B + (1 - alpha) * mean over i of max over s in S of
sim(i, s), with sim = (1 + cos) / 2; both terms are in [0, 1]. F is monotone and submodular, so the
greedy selection has at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher 1978). The
difficulty term is our addition.
"""

import math

import numpy as np
from pydantic import Field

from bridgekd.rng import make_rng
from bridgekd.selection.diversity import normalize_rows
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy, WithAlpha
from bridgekd.selection.submodular import select_lazily

EPSILON = 0.05  # expected loss of the stochastic selection against 1 - 1/e


class FacilityLocationOptions(WithAlpha):
    """`max_exact`: pools with more rows use the stochastic selection."""

    max_exact: int = Field(20_000, ge=0, le=10**6)


def facility_location(
    pool: SelectionPool, n_selected: int, options: FacilityLocationOptions, seed: int
) -> Ranking:
    """Return the greedy selection by F; scores are gains in F.

    Exact up to `max_exact` rows, in float64 and lazily (Minoux 1978): a gain never increases, so a
    gain that was computed once is an upper bound. Gains equal to 12 decimals go by id. Larger pools
    use stochastic greedy (Mirzasoleiman et al. 2015): each pick is the best of
    n / B * ln(1 / EPSILON) rows drawn by the seed. The mean is then over a sample of
    max(max_exact, 4 B) rows, so the guarantee holds for the sample's F. The rest is ranked by
    alpha * d + (1 - alpha) * distance.
    """
    if len(pool) <= options.max_exact:
        rows, gains = _select_lazily(pool, n_selected, options.alpha)
    else:
        n_reference = max(options.max_exact, 4 * n_selected)
        sampled = make_rng(seed, "facility reference").permutation(len(pool))[:n_reference]
        reference = pool.embeddings[np.sort(sampled)]
        rows, gains = _select_stochastically(pool, reference, n_selected, options.alpha, seed)
    return rank_rest(pool, rows, gains, options.alpha)


def _select_lazily(
    pool: SelectionPool, n_selected: int, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    # In float64, so that two rows that represent only each other tie exactly.
    unit = normalize_rows(pool.embeddings.astype(np.float64))
    half = unit / 2
    own = alpha * pool.difficulty / max(1, n_selected)
    first = own + (1 - alpha) * (unit @ half.mean(axis=0) + 0.5) + 1e-9  # the first gain, or more
    bound = pool.divide_by_costs(first)
    covered = np.full(len(pool), -0.5)

    def compute_gains(rows: np.ndarray) -> np.ndarray:
        gain = _compute_gains(unit[rows] @ half.T, covered)
        return pool.divide_by_costs(np.round(own[rows] + (1 - alpha) * gain, 12), rows)

    def add(row: int) -> None:
        np.maximum(covered, half @ unit[row], out=covered)

    return select_lazily(bound, n_selected, compute_gains, add)


def _select_stochastically(
    pool: SelectionPool, reference: np.ndarray, n_selected: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = make_rng(seed, "facility candidates")
    n_candidates = math.ceil(len(pool) / max(1, n_selected) * math.log(1 / EPSILON))
    own = alpha * pool.difficulty / max(1, n_selected)
    is_left = np.ones(len(pool), dtype=bool)
    half = reference / 2
    covered = np.full(len(reference), -0.5, dtype=np.float32)
    rows, gains = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    for n_done in range(n_selected):
        candidates = np.unique(rng.integers(len(pool), size=n_candidates))
        candidates = candidates[is_left[candidates]]
        if not len(candidates):
            candidates = np.flatnonzero(is_left)[:1]
        half_cosine = pool.embeddings[candidates] @ half.T
        gain = own[candidates] + (1 - alpha) * _compute_gains(half_cosine, covered)
        gain = pool.divide_by_costs(gain, candidates)
        best = int(np.argmax(gain))
        rows[n_done], gains[n_done] = candidates[best], gain[best]
        is_left[candidates[best]] = False
        np.maximum(covered, half_cosine[best], out=covered)
    return rows, gains


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
    uses_costs=True,
    uses_seed=True,
)
