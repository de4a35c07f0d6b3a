"""BRIDGE's greedy argmax of alpha * difficulty + (1 - alpha) * v, exact, for pools of millions.

The one idea: v only falls, so a score that was computed once is an upper bound from then on. An
active set of the highest scores is kept up to date pick by pick; all other rows wait. While the
best score of the active set is above the highest score outside at the last refresh, it is the best
of the pool. When the active set is used up, one blocked matrix product updates every row against
all new picks, and the next active set is taken. The work is n * B * d multiplications, which the
ranking after the selection needs in any case. Nothing is approximate, whatever alpha is.
"""

from dataclasses import dataclass

import numpy as np

from bridgekd.selection.diversity import (
    EARLIER_PURCHASE,
    Nearest,
    find_nearest_picks,
    make_empty_nearest,
    update_nearest,
    update_nearest_one,
)
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest

ACTIVE_SET_SIZE = 8192  # rows of the first active set; the selection does not depend on it


@dataclass(slots=True)
class _ActiveSet:
    """Rows of the pool (ascending) that are kept up to date.

    Every row outside is worse than (`threshold`, `last`) in the order of falling score, then
    rising row. `base` is alpha * difficulty.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    base: np.ndarray
    nearest: Nearest
    threshold: float
    last: int

    def find_best(self, alpha: float) -> tuple[int, float] | None:
        """Return index and score of the pool's best row; None if that may be outside."""
        score = self.base + (1 - alpha) * self.nearest.distance
        is_sure = (score > self.threshold) | ((score == self.threshold) & (self.rows <= self.last))
        n_sure = np.count_nonzero(is_sure)
        if not n_sure:
            return None
        # A row below the threshold is of no use until the next refresh.
        if 2 * n_sure < len(is_sure):
            self.keep(is_sure)
            score = score[is_sure]
        best = int(np.argmax(score))
        return best, float(score[best])

    def keep(self, mask: np.ndarray) -> None:
        self.rows, self.embeddings = self.rows[mask], self.embeddings[mask]
        self.base = self.base[mask]
        self.nearest = Nearest(self.nearest.distance[mask], self.nearest.pick[mask])


@dataclass(frozen=True, slots=True)
class _Picks:
    rows: np.ndarray
    score: np.ndarray
    nearest_at_pick: Nearest


def select_greedy(
    pool: SelectionPool,
    n_selected: int,
    alpha: float,
    groups: np.ndarray | None = None,
    quotas: np.ndarray | None = None,
    *,
    active_set_size: int = ACTIVE_SET_SIZE,
) -> Ranking:
    """Return B picks, each the row of the highest alpha * d + (1 - alpha) * v when it is picked.

    v is the distance to the nearest earlier pick, 1 for the first; questions of earlier purchases
    count as picks. Ties go by id. alpha = 0 is k-center (Gonzalez 1985), alpha = 1 the hardest
    first. With `groups` [n] and `quotas` [g], which add up to B, no group exceeds its quota.
    """
    groups = np.zeros(len(pool), dtype=np.int64) if groups is None else groups
    quotas = np.array([n_selected]) if quotas is None else quotas
    nearest = make_empty_nearest(len(pool))
    if len(pool.already_asked):
        nearest.distance[:] = find_nearest_picks(pool.embeddings, pool.already_asked).distance
        nearest.pick[:] = EARLIER_PURCHASE
    picks = _pick(pool, n_selected, alpha, groups, quotas.copy(), nearest, active_set_size)
    return rank_rest(
        pool,
        picks.rows,
        picks.score,
        alpha,
        nearest_at_pick=picks.nearest_at_pick,
        nearest_at_end=nearest,
    )


def _pick(
    pool: SelectionPool,
    n_selected: int,
    alpha: float,
    groups: np.ndarray,
    n_left: np.ndarray,
    nearest: Nearest,
    first_size: int,
) -> _Picks:
    """Return the picks; update `nearest` by all of them and count `n_left` [g] down."""
    base = alpha * pool.difficulty
    base[n_left[groups] == 0] = -np.inf  # picked, or its group is full
    picks = _Picks(
        np.empty(n_selected, dtype=np.int64),
        np.empty(n_selected),
        make_empty_nearest(n_selected),
    )
    size, done, refreshed = first_size, 0, 0
    while done < n_selected:
        active = _build_active_set(pool, base, nearest, alpha, size)
        while done < n_selected and (best := active.find_best(alpha)):
            index, picks.score[done] = best
            row = picks.rows[done] = int(active.rows[index])
            picks.nearest_at_pick.distance[done] = active.nearest.distance[index]
            picks.nearest_at_pick.pick[done] = active.nearest.pick[index]
            n_left[groups[row]] -= 1
            base[row] = active.base[index] = -np.inf
            if not n_left[groups[row]]:
                base[groups == groups[row]] = -np.inf
                active.base[groups[active.rows] == groups[row]] = -np.inf
            update_nearest_one(active.nearest, active.embeddings, pool.embeddings[row], done)
            done += 1
        new = pool.embeddings[picks.rows[refreshed:done]]
        update_nearest(nearest, pool.embeddings, new, refreshed)
        size = _choose_size(size, done - refreshed, len(pool), first_size)
        refreshed = done
    return picks


def _choose_size(size: int, n_picks: int, n: int, first_size: int) -> int:
    """Return the next size: a pick reads `size` rows, a refresh n; neither should cost far more."""
    if size * n_picks < n:
        return min(2 * size, max(first_size, n // 8))
    return max(size // 2, first_size // 16) if size * n_picks > 4 * n else size


def _build_active_set(
    pool: SelectionPool, base: np.ndarray, nearest: Nearest, alpha: float, size: int
) -> _ActiveSet:
    """Return the `size` best rows by falling score, then rising row."""
    score = base + (1 - alpha) * nearest.distance
    size = min(size, int(np.count_nonzero(score > -np.inf)))
    threshold = float(np.partition(score, len(score) - size)[len(score) - size])
    above = np.flatnonzero(score > threshold)
    equal = np.flatnonzero(score == threshold)[: size - len(above)]
    rows = np.sort(np.concatenate([above, equal]))
    own = Nearest(nearest.distance[rows], nearest.pick[rows])
    return _ActiveSet(rows, pool.embeddings[rows], base[rows], own, threshold, int(equal[-1]))
