"""Which questions to pay for: every strategy is a function from arrays to one ranking of the whole
pool.

Contract of a strategy: the first `n_chosen` places are its choice, in the order of choosing; the
rest follows by static score; equal scores go by id; neither the order of the pool nor anything but
`seed` changes the ranking; inputs are left as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bridgekd.core.difficulty import rank_normalise
from bridgekd.core.diversity import distances_to
from bridgekd.core.draws import stream
from bridgekd.records import Pick


@dataclass(frozen=True, slots=True)
class Pool:
    """What a strategy sees, in the order of ids: ids [n], difficulty [n] in [0, 1], embeddings [n,
    d].
    """

    ids: tuple[str, ...]
    difficulty: np.ndarray
    embeddings: np.ndarray


Strategy = Callable[[Pool, int, float, int], list[Pick]]


def rank(
    strategy: str,
    ids: Sequence[str],
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    *,
    n_chosen: int,
    alpha: float,
    seed: int,
) -> list[Pick]:
    """The ranking of the pool by `strategy`, a key of STRATEGIES.

    `difficulty` [n] in any unit, higher = harder; `embeddings` [n, d] float32 with rows of length
    1; alpha in [0, 1] is the share of difficulty in the score.
    """
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    pool = Pool(tuple(ids[i] for i in order), rank_normalise(difficulty)[order], embeddings[order])
    return STRATEGIES[strategy](pool, n_chosen, alpha, seed)


def greedy(pool: Pool, n_chosen: int, alpha: float, seed: int) -> list[Pick]:
    """BRIDGE: greedy argmax of alpha * d + (1 - alpha) * v, v the distance to the nearest earlier
    pick.

    "Top-B of the combination" is stated in arXiv 2512.20403; that it is greedy, and alpha, is our
    reading. v is 1 for the first pick. alpha = 0 is k-center (Gonzalez), alpha = 1 the hardest
    first.
    """
    n = len(pool.ids)
    distance = np.ones(n, dtype=np.float32)
    nearest = np.full(n, -1)
    left = np.ones(n, dtype=bool)
    picks = []
    for place in range(min(n_chosen, n)):
        score = alpha * pool.difficulty + (1 - alpha) * distance
        best = int(np.argmax(np.where(left, score, -np.inf)))
        picks.append(_pick(pool, best, place, score[best], distance[best], nearest[best]))
        left[best] = False
        to_best = distances_to(pool.embeddings, best)
        closer = to_best < distance if place else np.ones(n, dtype=bool)
        distance[closer], nearest[closer] = to_best[closer], best
    static = alpha * pool.difficulty + (1 - alpha) * distance
    return picks + _rest(pool, left, static, len(picks))


def at_random(pool: Pool, n_chosen: int, alpha: float, seed: int) -> list[Pick]:
    """A uniform permutation of the pool."""
    order = stream(seed, "random choice").permutation(len(pool.ids))
    return [
        Pick(pool.ids[i], place, place < n_chosen, 0.0, float(pool.difficulty[i]))
        for place, i in enumerate(order)
    ]


def _pick(pool: Pool, i: int, place: int, score: float, distance: float, nearest: int) -> Pick:
    return Pick(
        id=pool.ids[i],
        rank=place,
        chosen=True,
        score=float(score),
        difficulty=float(pool.difficulty[i]),
        distance=float(distance),
        nearest=pool.ids[nearest] if nearest >= 0 else None,
    )


def _rest(pool: Pool, left: np.ndarray, static: np.ndarray, place: int) -> list[Pick]:
    rows = np.flatnonzero(left)
    rows = rows[np.argsort(-static[rows], kind="stable")]  # stable: equal scores stay in id order
    return [
        Pick(pool.ids[i], place + k, False, float(static[i]), float(pool.difficulty[i]))
        for k, i in enumerate(rows)
    ]


def _with_alpha(value: float, pool: Pool, n_chosen: int, alpha: float, seed: int) -> list[Pick]:
    return greedy(pool, n_chosen, value, seed)


STRATEGIES: dict[str, Strategy] = {
    "bridge": greedy,
    "random": at_random,
    "hardest": partial(_with_alpha, 1.0),
    "diverse": partial(_with_alpha, 0.0),
}
