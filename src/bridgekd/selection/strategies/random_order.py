"""Random selection: the baseline of every other strategy."""

import numpy as np

from bridgekd.rng import make_rng
from bridgekd.selection.ranking import Ranking, SelectionPool, build_ranking
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def random(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return a uniform permutation of the pool; all scores are 0."""
    order = make_rng(seed, "random choice").permutation(len(pool))
    return build_ranking(pool, order, np.zeros(len(pool)), n_selected)


STRATEGY = Strategy(
    name="random",
    title="Random",
    summary="Draws the questions at random.",
    paper="",
    options=NoOptions,
    rank=random,
    needs_difficulty=False,
    needs_embeddings=False,
    uses_seed=True,
    is_nested=True,
)
