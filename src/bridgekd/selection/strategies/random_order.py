"""Random selection: the baseline of every other strategy."""

from bridgekd.selection.ranking import Ranking, SelectionPool, draw_order, rank_in_order
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def random(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return a uniform permutation of the pool; all scores are 0."""
    return rank_in_order(pool, draw_order(len(pool), seed), n_selected)


STRATEGY = Strategy(
    name="random",
    title="Random",
    summary="Draws the questions at random.",
    options=NoOptions,
    rank=random,
    uses_seed=True,
    is_random_draw=True,
    is_nested=True,
)
