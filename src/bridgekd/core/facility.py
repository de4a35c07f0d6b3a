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


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """In float64 and of length 1 in it: two rows that gain from each other alone tie exactly."""
    exact = embeddings.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(length > 0, length, 1))


def _gains(half_cosine: np.ndarray, served: np.ndarray) -> np.ndarray:
    """How much each of k rows [k, m] would add to what every reference has: mean over m, [k].

    Both are similarities less 1/2, so `served` is -1/2 before the first pick.
    """
    gain = half_cosine - served
    np.maximum(gain, 0, out=gain)
    return np.asarray(gain.mean(axis=1, dtype=np.float64))


def _lazily(
    pool: Pool, reference: np.ndarray, n_chosen: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    unit = _unit(reference)
    half = unit / 2
    own = alpha * pool.difficulty / max(1, n_chosen)
    bound = own + (1 - alpha) * (unit @ half.mean(axis=0) + 0.5) + 1e-9  # the first gain, or more
    counted = np.full(len(pool), -1)  # picks that were known when the bound was computed
    served = np.full(len(reference), -0.5)
    rows, gains = np.empty(n_chosen, dtype=np.int64), np.empty(n_chosen)
    for done in range(n_chosen):
        while counted[best := int(np.argmax(bound))] != done:
            top = np.argpartition(-bound, min(_AT_ONCE, len(pool) - 1))[:_AT_ONCE]
            stale = np.union1d(top[(counted[top] != done) & (bound[top] > -np.inf)], [best])
            gain = _gains(unit[stale] @ half.T, served)
            bound[stale] = np.round(own[stale] + (1 - alpha) * gain, 12)
            counted[stale] = done
        rows[done], gains[done] = best, bound[best]
        bound[best] = -np.inf
        np.maximum(served, half @ unit[best], out=served)
    return rows, gains


def _stochastically(
    pool: Pool, reference: np.ndarray, n_chosen: int, alpha: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = stream(seed, "facility candidates")
    n_drawn = math.ceil(len(pool) / max(1, n_chosen) * math.log(1 / EPSILON))
    own = alpha * pool.difficulty / max(1, n_chosen)
    left = np.ones(len(pool), dtype=bool)
    half = reference / 2
    served = np.full(len(reference), -0.5, dtype=np.float32)
    rows, gains = np.empty(n_chosen, dtype=np.int64), np.empty(n_chosen)
    for done in range(n_chosen):
        drawn = np.unique(rng.integers(len(pool), size=n_drawn))
        drawn = drawn[left[drawn]]
        if not len(drawn):
            drawn = np.flatnonzero(left)[:1]
        half_cosine = pool.embeddings[drawn] @ half.T
        gain = own[drawn] + (1 - alpha) * _gains(half_cosine, served)
        place = int(np.argmax(gain))
        rows[done], gains[done] = drawn[place], gain[place]
        left[drawn[place]] = False
        np.maximum(served, half_cosine[place], out=served)
    return rows, gains
