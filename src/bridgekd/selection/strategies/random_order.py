"""Random selection: the baseline of every other strategy."""

from dataclasses import replace

import numpy as np

from bridgekd.rng import make_rng
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def random(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return a uniform permutation of the pool; all scores are 0."""
    order = make_rng(seed, "random choice").permutation(len(pool))
    scores = np.zeros(len(pool))
    by_position = -np.argsort(order).astype(float)
    return replace(
        rank_rest(pool, order[:n_selected], scores[:n_selected], by_position), score=scores
    )


STRATEGY = Strategy(
    name="random",
    title="Random",
    summary="Draws the questions at random.",
    options=NoOptions,
    rank=random,
    uses_seed=True,
    is_nested=True,
)
