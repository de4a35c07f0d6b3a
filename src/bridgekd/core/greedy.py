"""BRIDGE's choice: greedy argmax of alpha * d + (1 - alpha) * v, exact, for pools of millions.

The one idea: v only falls, so a score once computed is an upper bound for ever. A front of the
highest scores is kept up to date pick by pick; all other rows wait. As long as the front's best
stands above the highest score outside at the last refresh, it is the pool's best. When the front
is used up, every row is brought up to date against all new picks by one blocked matrix product, and
the next front is taken. The work is n * B * d multiplications, which the places after the choice
need anyway, at the speed of a matrix product. Nothing is approximate, whatever alpha is.
"""

from dataclasses import dataclass

import numpy as np

from bridgekd.core.diversity import (
    EARLIER,
    Nearest,
    bring_near,
    bring_near_one,
    nearest_picks,
    nobody,
)
from bridgekd.core.ranking import Choice, Pool, followed

_FRONT = 8192  # rows in the first front; the choice does not depend on it


@dataclass(slots=True)
class _Front:
    """Rows of the pool (ascending) that are kept up to date. Every row outside is worse than
    (`bar`, `last`) in the order of falling score, then rising row.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    base: np.ndarray  # alpha * difficulty
    near: Nearest
    bar: float
    last: int

    def best(self, alpha: float) -> tuple[int, float] | None:
        """Place in the front and score of the pool's best row; None where that may be outside."""
        score = self.base + (1 - alpha) * self.near.distance
        live = (score > self.bar) | ((score == self.bar) & (self.rows <= self.last))
        n_live = np.count_nonzero(live)
        if not n_live:
            return None
        if 2 * n_live < len(live):  # what fell below the bar is of no use until the next refresh
            self.keep(live)
            score = score[live]
        place = int(np.argmax(score))
        return place, float(score[place])

    def keep(self, these: np.ndarray) -> None:
        self.rows, self.embeddings = self.rows[these], self.embeddings[these]
        self.base = self.base[these]
        self.near = Nearest(self.near.distance[these], self.near.pick[these])


@dataclass(frozen=True, slots=True)
class _Picked:
    rows: np.ndarray
    score: np.ndarray
    earlier: Nearest


def greedy(
    pool: Pool,
    n_chosen: int,
    alpha: float,
    groups: np.ndarray | None = None,
    quotas: np.ndarray | None = None,
) -> Choice:
    """B picks, each the row of the highest alpha * d + (1 - alpha) * v at its moment, ties by id.

    "Top-B of the combination" is stated in arXiv 2512.20403; that it is greedy, and alpha, is our
    reading. v is the distance to the nearest earlier pick, 1 for the first; what earlier rounds
    asked counts as picked. alpha = 0 is k-center (Gonzalez 1985), alpha = 1 the hardest first. With
    `groups` [n] and `quotas` [g], which add up to B, no group gives more than its quota.
    """
    groups = np.zeros(len(pool), dtype=np.int64) if groups is None else groups
    quotas = np.array([n_chosen]) if quotas is None else quotas
    near = nobody(len(pool))
    if len(pool.asked):
        near.distance[:] = nearest_picks(pool.embeddings, pool.asked).distance
        near.pick[:] = EARLIER
    picked = _picked(pool, n_chosen, alpha, groups=groups, room=quotas.copy(), near=near)
    return followed(pool, picked.rows, picked.score, alpha, earlier=picked.earlier, finished=near)


def _picked(
    pool: Pool,
    n_chosen: int,
    alpha: float,
    *,
    groups: np.ndarray,
    room: np.ndarray,
    near: Nearest,
) -> _Picked:
    """The picks; `near` is brought up to date for all of them, `room` [g] is used up."""
    base = alpha * pool.difficulty
    base[room[groups] == 0] = -np.inf  # out of the running: chosen, or its group is full
    picked = _Picked(np.empty(n_chosen, dtype=np.int64), np.empty(n_chosen), nobody(n_chosen))
    size, done, refreshed = _FRONT, 0, 0
    while done < n_chosen:
        front = _front(pool, base, near, alpha, size)
        while done < n_chosen and (found := front.best(alpha)):
            place, picked.score[done] = found
            row = picked.rows[done] = int(front.rows[place])
            picked.earlier.distance[done] = front.near.distance[place]
            picked.earlier.pick[done] = front.near.pick[place]
            room[groups[row]] -= 1
            base[row] = front.base[place] = -np.inf
            if not room[groups[row]]:
                base[groups == groups[row]] = -np.inf
                front.base[groups[front.rows] == groups[row]] = -np.inf
            bring_near_one(front.near, front.embeddings, pool.embeddings[row], done)
            done += 1
        bring_near(near, pool.embeddings, pool.embeddings[picked.rows[refreshed:done]], refreshed)
        size = _next_size(size, done - refreshed, len(pool))
        refreshed = done
    return picked


def _next_size(size: int, n_picks: int, n: int) -> int:
    """Keeping a front reads `size` rows a pick, a refresh n rows: neither should cost much more."""
    if size * n_picks < n:
        return min(2 * size, max(_FRONT, n // 8))
    return max(size // 2, _FRONT // 16) if size * n_picks > 4 * n else size


def _front(pool: Pool, base: np.ndarray, near: Nearest, alpha: float, size: int) -> _Front:
    """The `size` best rows by falling score, then rising row."""
    score = base + (1 - alpha) * near.distance
    size = min(size, int(np.count_nonzero(score > -np.inf)))
    bar = float(np.partition(score, len(score) - size)[len(score) - size])
    above = np.flatnonzero(score > bar)
    equal = np.flatnonzero(score == bar)[: size - len(above)]
    rows = np.sort(np.concatenate([above, equal]))
    here = Nearest(near.distance[rows], near.pick[rows])
    return _Front(rows, pool.embeddings[rows], base[rows], here, bar, int(equal[-1]))
