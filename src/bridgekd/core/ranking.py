"""A ranking of the whole pool in columns, and what a strategy gives it to be made of.

Strategies see the pool in the order of ids; only `ranking` knows the order it was given in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.core.diversity import Nearest, nearest_earlier, nearest_picks
from bridgekd.records import Pick


@dataclass(frozen=True, slots=True)
class Pool:
    """What a strategy sees, in the order of ids: difficulty [n] in [0, 1], `embeddings` [n, d]
    float32 with rows of length 1, `domains` [n] integers, and `asked` [a, d], the embeddings of
    what earlier rounds asked.
    """

    difficulty: np.ndarray
    embeddings: np.ndarray
    domains: np.ndarray
    asked: np.ndarray

    def __len__(self) -> int:
        return len(self.difficulty)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a strategy chose, in rows of its Pool.

    `order` [n] is the whole ranking and `score` [n] its scores; `earlier` [B] holds each pick's
    nearest earlier pick, `finished` [n] every row's nearest pick of the finished choice, `cluster`
    [n] one number a row; None where there are no embeddings. `n_filled` of the picks are there
    only because the strategy's rule found too few.
    """

    order: np.ndarray
    score: np.ndarray
    earlier: Nearest | None = None
    finished: Nearest | None = None
    cluster: np.ndarray | None = None
    n_filled: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The pool in rank order; all columns are [n], the first `n_chosen` places are the choice.

    `rows` and `nearest` are row numbers of the arrays given to `rank`. `difficulty` is
    rank-normalised to [0, 1]. `distance` in [0, 1] is a pick's distance to `nearest`, the nearest
    earlier pick (1 and -1 for the first); after the choice NaN and -1. `to_choice` is the distance
    to the nearest pick of the finished choice. `cluster`: "medoids" and "clusters" give theirs; for
    the others a pick has its own place and the rest the place of its nearest pick of the finished
    choice; below 0 where nothing is chosen, or what is nearest was asked in an earlier round.
    Without embeddings distances are NaN, row numbers -1.
    """

    rows: np.ndarray
    n_chosen: int
    score: np.ndarray
    difficulty: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    cluster: np.ndarray
    to_choice: np.ndarray
    n_filled: int = 0

    def columns(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The columns of Pick for the pool's `ids`; a masked place is None."""
        names = np.array([*ids, ""], dtype=object)  # the last one is for row -1
        return {
            "id": names[self.rows],
            "rank": np.arange(len(self.rows)),
            "chosen": np.arange(len(self.rows)) < self.n_chosen,
            "score": self.score,
            "difficulty": self.difficulty,
            "distance": np.ma.masked_invalid(self.distance),
            "nearest": np.ma.masked_array(names[self.nearest], self.nearest < 0),
            "cluster": np.ma.masked_array(self.cluster, self.cluster < 0),
        }

    def picks(self, ids: Sequence[str]) -> list[Pick]:
        """The same as rows, for people and small pools."""
        columns = {name: column.tolist() for name, column in self.columns(ids).items()}
        return [
            Pick(**dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]

    @property
    def coverage(self) -> tuple[float, float]:
        """Mean and largest distance of the pool to its nearest pick."""
        return float(self.to_choice.mean()), float(self.to_choice.max())


def followed(
    pool: Pool,
    picks: np.ndarray,
    score: np.ndarray,
    static: np.ndarray | float,
    *,
    earlier: Nearest | None = None,
    finished: Nearest | None = None,
    cluster: np.ndarray | None = None,
    n_filled: int = 0,
) -> Choice:
    """`picks` [B] with their `score` [B], then the rest by its static score, ties in id order.

    `static` is [n], or the share alpha of difficulty in alpha * d + (1 - alpha) * distance to the
    finished choice. What is not known of the distances is measured.
    """
    chosen = pool.embeddings[picks]
    if earlier is None:
        earlier = nearest_earlier(chosen)
    if finished is None:
        finished = nearest_picks(pool.embeddings, chosen)
    finished.pick[picks] = np.arange(len(picks))  # also where an earlier pick is its equal
    finished.distance[picks] = 0
    if not isinstance(static, np.ndarray):
        static = static * pool.difficulty + (1 - static) * finished.distance
    left = np.ones(len(pool), dtype=bool)
    left[picks] = False
    rest = hardest_first(static, np.flatnonzero(left))
    return Choice(
        np.concatenate([picks, rest]),
        np.concatenate([score, static[rest]]),
        earlier,
        finished,
        finished.pick if cluster is None else cluster,
        n_filled,
    )


def hardest_first(score: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`rows` (ascending) by falling `score` [n], equal scores in the order of rows."""
    return np.asarray(rows[np.argsort(-score[rows], kind="stable")])


def ranking(pool: Pool, choice: Choice, n_chosen: int, row_of: np.ndarray) -> Ranking:
    """The choice in the rows of the arrays given; `row_of` [n] says which each of the Pool's is."""
    n, order = len(pool), choice.order
    distance, nearest = np.full(n, np.nan), np.full(n, -1)
    cluster, to_choice = np.full(n, -1), np.full(n, np.nan)
    if choice.earlier is not None:
        distance[:n_chosen] = choice.earlier.distance
        known = np.flatnonzero(choice.earlier.pick >= 0)
        nearest[known] = row_of[order[choice.earlier.pick[known]]]
    if choice.finished is not None:
        to_choice = choice.finished.distance[order]
    if choice.cluster is not None:
        cluster = choice.cluster[order]
    return Ranking(
        row_of[order],
        n_chosen,
        choice.score,
        pool.difficulty[order],
        distance,
        nearest,
        cluster,
        to_choice,
        choice.n_filled,
    )
