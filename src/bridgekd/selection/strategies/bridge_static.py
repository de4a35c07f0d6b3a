"""BRIDGE's selection, in one step."""

import numpy as np

from bridgekd.selection.diversity import compute_distances
from bridgekd.selection.ranking import (
    Ranking,
    SelectionPool,
    rank_normalize,
    rank_rest,
    sort_by_score,
)
from bridgekd.selection.strategy import Strategy, WithAlpha

_BLOCK_SIZE = 4096


def bridge_static(pool: SelectionPool, n_selected: int, options: WithAlpha, seed: int) -> Ranking:
    """Return the literal "top-B of the combination", alpha * d + (1 - alpha) * novelty.

    Novelty, the rank-normalized mean distance to the pool, is our reading.
    """
    center = pool.embeddings.mean(axis=0, dtype=np.float64)
    starts = range(0, len(pool), _BLOCK_SIZE)
    blocks = (pool.embeddings[start : start + _BLOCK_SIZE] for start in starts)
    novelty = rank_normalize(np.concatenate([compute_distances(b, center) for b in blocks]))
    score = options.alpha * pool.difficulty + (1 - options.alpha) * novelty
    score = pool.divide_by_costs(score)
    picks = sort_by_score(score, np.arange(len(pool)))[:n_selected]
    return rank_rest(pool, picks, score[picks], score)


STRATEGY = Strategy(
    name="bridge_static",
    title="BRIDGE, static",
    summary="Takes the top B of alpha * difficulty + (1 - alpha) * mean distance to the pool.",
    paper="arXiv 2512.20403",
    options=WithAlpha,
    rank=bridge_static,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_costs=True,
    is_nested=True,
)
