"""BRIDGE's selection, one question at a time."""

from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.ranking import Ranking, SelectionPool
from bridgekd.selection.strategy import Strategy, WithAlpha


def bridge_greedy(pool: SelectionPool, n_selected: int, options: WithAlpha, seed: int) -> Ranking:
    """Return B greedy picks. The paper states "top-B of the combination"; greedy is our reading."""
    return select_greedy(pool, n_selected, options.alpha)


STRATEGY = Strategy(
    name="bridge_greedy",
    title="BRIDGE, greedy",
    summary="Picks one question at a time by alpha * difficulty + (1 - alpha) * distance to "
    "the nearest earlier pick.",
    paper="arXiv 2512.20403",
    options=WithAlpha,
    rank=bridge_greedy,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_costs=True,
    is_nested=True,
)
