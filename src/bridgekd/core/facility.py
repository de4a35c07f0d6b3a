"""Facility location: the choice that best stands for every question of the pool.

F(S) = alpha * sum over s in S of d_s / B + (1 - alpha) * mean over i of max over s in S of
sim(i, s), sim = (1 + cos) / 2; each part is in [0, 1]. Monotone and submodular, so the greedy
choice has at least 1 - 1/e of the best F (Nemhauser, Wolsey and Fisher 1978). The mixing is ours.
"""

import math

import numpy as np

from bridgekd.core.draws import stream
from bridgekd.core.ranking import Choice, Pool, followed

EXACT = 20_000  # rows up to which the greedy choice is exact
EPSILON = 0.05  # beyond: the choice has 1 - 1/e - EPSILON of the best, in expectation
_AT_ONCE = 64


def facility(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """The greedy choice by F; scores are gains in F, the rest goes by alpha * d + (1 - alpha) *
    distance.

    Up to EXACT rows in float64 and lazily (Minoux 1978): a gain only falls, so one once computed is
    a bound; gains equal to 12 decimals go by id. Beyond, stochastic greedy (Mirzasoleiman et al.
    2015): each pick is the best of n / B * ln(1 / EPSILON) rows drawn by the seed, and the mean is
    taken over a sample of max(EXACT, 4 B) rows, so the guarantee holds for the sample's F.
    """
    reference = pool.embeddings
    if len(pool) > EXACT:
        rng = stream(seed, "facility reference")
        drawn = rng.permutation(len(pool))[: max(EXACT, 4 * n_chosen)]
        reference = pool.embeddings[np.sort(drawn)]
    pick = _lazily if len(pool) <= EXACT else _stochastically
    rows, gains = pick(pool, reference, n_chosen, alpha, seed)
    return followed(pool, rows, gains, alpha)


def _similarity(reference: np.ndarray, some: np.ndarray) -> np.ndarray:
    """(1 + cos) / 2 of `some` [k, d] to each of `reference` [m, d]: [k, m]."""
    similarity = some @ reference.T
    similarity += 1
    similarity /= 2
    return np.asarray(similarity)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """In float64 and of length 1 in it: two rows that gain from each other alone tie exactly."""
    exact = embeddings.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(length > 0, length, 1))


def _gains(similarity: np.ndarray, served: np.ndarray) -> np.ndarray:
    """How much each of k rows [k, m] would add to what every reference has: mean over m, [k]."""
    similarity -= served
    np.maximum(similarity, 0, out=similarity)
    return np.asarray(similarity.mean(axis=1, dtype=np.float64))


def _lazily(
    pool: Pool, reference: np.ndarray, n_chosen: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    reference = _unit(reference)
    own = alpha * pool.difficulty / max(1, n_chosen)
    bound = own + (1 - alpha)  # no gain is larger
    counted = np.full(len(pool), -1)  # picks that were known when the bound was computed
    served = np.zeros(len(reference))
    rows, gains = np.empty(n_chosen, dtype=np.int64), np.empty(n_chosen)
    for done in range(n_chosen):
        while counted[best := int(np.argmax(bound))] != done:
            top = np.argpartition(-bound, min(_AT_ONCE, len(pool) - 1))[:_AT_ONCE]
            stale = np.union1d(top[(counted[top] != done) & (bound[top] > -np.inf)], [best])
            gain = _gains(_similarity(reference, reference[stale]), served)
            bound[stale] = np.round(own[stale] + (1 - alpha) * gain, 12)
            counted[stale] = done
        rows[done], gains[done] = best, bound[best]
        bound[best] = -np.inf
        mine = _similarity(reference, reference[best : best + 1])[0]
        np.maximum(served, mine, out=served)
    return rows, gains


def _stochastically(
    pool: Pool, reference: np.ndarray, n_chosen: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = stream(seed, "facility candidates")
    n_drawn = math.ceil(len(pool) / max(1, n_chosen) * math.log(1 / EPSILON))
    own = alpha * pool.difficulty / max(1, n_chosen)
    left = np.ones(len(pool), dtype=bool)
    served = np.zeros(len(reference), dtype=np.float32)
    rows, gains = np.empty(n_chosen, dtype=np.int64), np.empty(n_chosen)
    for done in range(n_chosen):
        drawn = np.unique(rng.integers(len(pool), size=n_drawn))
        drawn = drawn[left[drawn]]
        if not len(drawn):
            drawn = np.flatnonzero(left)[:1]
        similarity = _similarity(reference, pool.embeddings[drawn])
        gain = own[drawn] + (1 - alpha) * _gains(similarity.copy(), served)
        place = int(np.argmax(gain))
        rows[done], gains[done] = drawn[place], gain[place]
        left[drawn[place]] = False
        np.maximum(served, similarity[place], out=served)
    return rows, gains
