"""Diversity only."""

from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.ranking import Ranking, SelectionPool
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def diverse(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return greedy k-center picks: `bridge_greedy` with alpha = 0."""
    return select_greedy(pool, n_selected, alpha=0.0)


STRATEGY = Strategy(
    name="diverse",
    title="k-center",
    summary="Picks the question farthest from all earlier picks, one at a time.",
    paper="Gonzalez 1985; as active learning arXiv 1708.00489",
    options=NoOptions,
    rank=diverse,
    needs_embeddings=True,
    uses_costs=True,
    is_nested=True,
)
