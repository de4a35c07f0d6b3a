"""The pool as a strategy sees it, and a ranking of the complete pool in columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from bridgekd.errors import InputError
from bridgekd.rng import make_rng
from bridgekd.selection.diversity import Nearest, find_nearest_earlier, find_nearest_picks


@dataclass(frozen=True, slots=True)
class SelectionPool:
    """What a strategy sees, in the order of ids.

    difficulty: [n] in [0, 1]. embeddings: [n, d] float32 with rows of length 1; d is 0 if there
    are none. domains: [n] integers. already_queried: [a, d], the embeddings of the questions of
    earlier purchases. costs: [n] above 0, what a kept rationale is forecast to cost; None if gains
    are not divided by costs.
    """

    difficulty: np.ndarray
    embeddings: np.ndarray
    domains: np.ndarray
    already_queried: np.ndarray
    costs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.difficulty)

    def divide_by_costs(self, gains: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the gain of each row, or of the given `rows`, for its forecast cost."""
        if self.costs is None:
            return gains
        return np.asarray(gains / (self.costs if rows is None else self.costs[rows]))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The pool in rank order; all columns are [n], the first `n_selected` rows are the selection.

    rows, nearest: row numbers. difficulty: rank-normalized to [0, 1]. distance: of a pick to
    `nearest`, the nearest earlier pick, in [0, 1] (1 and -1 for the first); NaN and -1 after the
    selection. distance_to_selection: to the nearest pick of the complete selection. cluster: the
    strategy's own, else the position of the nearest pick; below 0 if nothing is selected or the
    nearest question is from an earlier purchase. Without embeddings all distances are NaN and all
    numbers -1. n_filled: picks that were added because the strategy's rule selected too few.
    """

    rows: np.ndarray
    n_selected: int
    score: np.ndarray
    difficulty: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    cluster: np.ndarray
    distance_to_selection: np.ndarray
    n_filled: int = 0

    def to_columns(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the columns of `Pick` for the pool's `ids`; a masked value is None."""
        names = np.array([*ids, ""], dtype=object)  # the last one is for row -1
        return {
            "id": names[self.rows],
            "rank": np.arange(len(self.rows)),
            "is_selected": np.arange(len(self.rows)) < self.n_selected,
            "score": self.score,
            "difficulty": self.difficulty,
            "distance": np.ma.masked_invalid(self.distance),
            "nearest": np.ma.masked_array(names[self.nearest], self.nearest < 0),
            "cluster": np.ma.masked_array(self.cluster, self.cluster < 0),
        }


def rank_rest(
    pool: SelectionPool,
    picks: np.ndarray,
    score: np.ndarray,
    static: np.ndarray | float,
    *,
    nearest_at_pick: Nearest | None = None,
    nearest_at_end: Nearest | None = None,
    cluster: np.ndarray | None = None,
    n_filled: int = 0,
) -> Ranking:
    """Return `picks` [B] with their `score` [B], then the rest by its static score, ties by id.

    static: [n], or the weight alpha in alpha * difficulty + (1 - alpha) * distance to the
    selection. cluster: [n], by row. nearest_at_pick: [B], each pick's nearest earlier pick.
    nearest_at_end: [n], every row's nearest pick of the complete selection. Both are computed if
    they are None.
    """
    distance, to_selection = np.full((2, len(pool)), np.nan)
    nearest = np.full(len(pool), -1)
    has_embeddings = pool.embeddings.shape[1] > 0
    if has_embeddings:
        if nearest_at_pick is None:
            nearest_at_pick = find_nearest_earlier(pool.embeddings[picks])
        if nearest_at_end is None:
            nearest_at_end = find_nearest_picks(pool.embeddings, pool.embeddings[picks])
        # A pick is its own nearest, even if an earlier pick has the same embedding.
        nearest_at_end.pick[picks] = np.arange(len(picks))
        nearest_at_end.distance[picks] = 0
        distance[: len(picks)] = nearest_at_pick.distance
        has_nearest = np.flatnonzero(nearest_at_pick.pick >= 0)
        nearest[has_nearest] = picks[nearest_at_pick.pick[has_nearest]]
        to_selection = nearest_at_end.distance
        cluster = nearest_at_end.pick if cluster is None else cluster
    if not isinstance(static, np.ndarray):
        static = pool.divide_by_costs(static * pool.difficulty + (1 - static) * to_selection)
    is_left = np.ones(len(pool), dtype=bool)
    is_left[picks] = False
    rest = sort_by_score(static, np.flatnonzero(is_left))
    order = np.concatenate([picks, rest])
    return Ranking(
        rows=order,
        n_selected=len(picks),
        score=np.concatenate([score, static[rest]]),
        difficulty=pool.difficulty[order],
        distance=distance,
        nearest=nearest,
        cluster=np.full(len(pool), -1) if cluster is None else cluster[order],
        distance_to_selection=to_selection[order],
        n_filled=n_filled,
    )


def draw_order(n: int, seed: int) -> np.ndarray:
    """Return the order in which `random` picks `n` questions, a permutation."""
    return make_rng(seed, "random choice").permutation(n)


def rank_in_order(pool: SelectionPool, order: np.ndarray, n_selected: int) -> Ranking:
    """Return the pool in this `order`, a permutation of its rows; all scores are 0."""
    zeros = np.zeros(len(pool))
    by_position = -np.argsort(order).astype(float)
    return replace(
        rank_rest(pool, order[:n_selected], zeros[:n_selected], by_position), score=zeros
    )


def sort_by_score(score: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return `rows` (ascending) by falling `score` [n]; ties stay in the order of rows.

    >>> sort_by_score(np.array([0.2, 0.9, 0.2]), np.arange(3)).tolist()
    [1, 0, 2]
    """
    return np.asarray(rows[np.argsort(-score[rows], kind="stable")])


def rank_normalize(difficulty: np.ndarray) -> np.ndarray:
    """Return the rank of every question as a fraction in [0, 1]; 1 is the hardest.

    difficulty: [n], any unit, higher is harder. Ties get their mean rank. A single question gets 0.
    Raises InputError if a value is not finite. Our reading of BRIDGE (arXiv 2512.20403): the paper
    combines difficulty with diversity and does not state the scale. Ranks make the two comparable,
    whatever the distribution of the assistant's losses is.
    >>> rank_normalize(np.array([0.1, 0.9, 0.4])).tolist()
    [0.0, 1.0, 0.5]
    """
    if not np.isfinite(difficulty).all():
        row = int(np.flatnonzero(~np.isfinite(difficulty))[0])
        raise InputError(
            f"The difficulty of row {row} of the pool is {difficulty[row]}: the assistant's "
            "training diverged. Lower assistant.warm_up_train.learning_rate."
        )
    if len(difficulty) < 2:
        return np.zeros(len(difficulty))
    return np.asarray((rankdata(difficulty) - 1) / (len(difficulty) - 1))
