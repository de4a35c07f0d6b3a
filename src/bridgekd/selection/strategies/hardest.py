"""Difficulty only."""

import numpy as np

from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest, sort_by_score
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def hardest(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return the pool by falling difficulty: `bridge_greedy` with alpha = 1."""
    score = pool.divide_by_costs(pool.difficulty)
    picks = sort_by_score(score, np.arange(len(pool)))[:n_selected]
    return rank_rest(pool, picks, score[picks], score)


STRATEGY = Strategy(
    name="hardest",
    title="Hardest first",
    summary="Takes the hardest questions.",
    options=NoOptions,
    rank=hardest,
    needs_difficulty=True,
    uses_costs=True,
    is_nested=True,
)
