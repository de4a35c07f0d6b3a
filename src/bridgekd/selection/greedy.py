"""BRIDGE's greedy argmax of alpha * difficulty + (1 - alpha) * v, exact, for pools of millions.

The one idea: v never increases, so a score that was computed once is an upper bound from then on.
An active set of the rows with the highest scores is updated after every pick; all other rows wait.
While the best score of the active set is above the highest score outside at the last refresh, it is
the best of the pool. When the active set is used up, one blocked matrix product updates every row
by all new picks, and the next active set is built. The work is n * B * d multiplications, which the
ranking after the selection needs in any case. The result is exact for every alpha.
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
    """Rows of the pool, ascending, that are updated after every pick.

    base: alpha * difficulty. weight: 1 - alpha. Both are divided by the row's cost, if it has one.
    Every row outside comes after (`threshold`, `last`) in the order of falling score, then rising
    row.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    base: np.ndarray
    weight: np.ndarray
    nearest: Nearest
    threshold: float
    last: int

    def find_best(self) -> tuple[int, float] | None:
        """Return index and score of the pool's best row; None if it may be outside."""
        score = self.base + self.weight * self.nearest.distance
        is_sure = (score > self.threshold) | ((score == self.threshold) & (self.rows <= self.last))
        n_sure = np.count_nonzero(is_sure)
        if not n_sure:
            return None
        # A row below the threshold is of no use until the next refresh.
        if 2 * n_sure < len(is_sure):
            self.rows, self.embeddings = self.rows[is_sure], self.embeddings[is_sure]
            self.base, self.weight = self.base[is_sure], self.weight[is_sure]
            score = score[is_sure]
            self.nearest = Nearest(*(column[is_sure] for column in self.nearest))
        best = int(np.argmax(score))
        return best, float(score[best])


def select_greedy(
    pool: SelectionPool,
    n_selected: int,
    alpha: float,
    groups: np.ndarray | None = None,
    quotas: np.ndarray | None = None,
    *,
    active_set_size: int = ACTIVE_SET_SIZE,
) -> Ranking:
    """Return B picks, each the row with the highest alpha * d + (1 - alpha) * v when it is picked.

    v is the distance to the nearest earlier pick, 1 for the first. Questions of earlier purchases
    count as picks. Ties go by id. alpha = 0 is k-center (Gonzalez 1985), alpha = 1 the hardest
    first. With costs in the pool the sum is divided by the row's. With `groups` [n] and `quotas`
    [g], whose sum is B, no group exceeds its quota.
    """
    groups = np.zeros(len(pool), dtype=np.int64) if groups is None else groups
    n_left = np.array([n_selected]) if quotas is None else quotas.copy()
    nearest = make_empty_nearest(len(pool))
    if len(pool.already_queried):
        nearest.distance[:] = find_nearest_picks(pool.embeddings, pool.already_queried).distance
        nearest.pick[:] = EARLIER_PURCHASE
    rows, scores = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    nearest_at_pick = make_empty_nearest(n_selected)
    base = pool.divide_by_costs(alpha * pool.difficulty)
    weight = pool.divide_by_costs(np.full(len(pool), 1 - alpha))
    base[n_left[groups] == 0] = -np.inf  # picked, or its group is full
    size, n_done, n_refreshed = active_set_size, 0, 0
    while n_done < n_selected:
        active = _build_active_set(pool, base, weight, nearest, size)
        while n_done < n_selected and (best := active.find_best()):
            index, scores[n_done] = best
            row = rows[n_done] = int(active.rows[index])
            for column, source in zip(nearest_at_pick, active.nearest, strict=True):
                column[n_done] = source[index]
            n_left[groups[row]] -= 1
            base[row] = active.base[index] = -np.inf
            if not n_left[groups[row]]:
                base[groups == groups[row]] = -np.inf
                active.base[groups[active.rows] == groups[row]] = -np.inf
            update_nearest_one(active.nearest, active.embeddings, pool.embeddings[row], n_done)
            n_done += 1
        update_nearest(
            nearest, pool.embeddings, pool.embeddings[rows[n_refreshed:n_done]], n_refreshed
        )
        size = _choose_size(size, n_done - n_refreshed, len(pool), active_set_size)
        n_refreshed = n_done
    return rank_rest(
        pool, rows, scores, alpha, nearest_at_pick=nearest_at_pick, nearest_at_end=nearest
    )


def _choose_size(size: int, n_picks: int, n: int, first_size: int) -> int:
    """Return the next size: a pick reads `size` rows, a refresh n; their costs stay close."""
    if size * n_picks < n:
        return min(2 * size, max(first_size, n // 8))
    return max(size // 2, first_size // 16) if size * n_picks > 4 * n else size


def _build_active_set(
    pool: SelectionPool, base: np.ndarray, weight: np.ndarray, nearest: Nearest, size: int
) -> _ActiveSet:
    """Return the `size` best rows by falling score, then rising row."""
    score = base + weight * nearest.distance
    size = min(size, int(np.count_nonzero(score > -np.inf)))
    threshold = float(np.partition(score, len(score) - size)[len(score) - size])
    above = np.flatnonzero(score > threshold)
    equal = np.flatnonzero(score == threshold)[: size - len(above)]
    rows = np.sort(np.concatenate([above, equal]))
    active_nearest = Nearest(*(column[rows] for column in nearest))
    last = int(equal[-1])
    return _ActiveSet(
        rows, pool.embeddings[rows], base[rows], weight[rows], active_nearest, threshold, last
    )
