"""BRIDGE's selection with proportional quotas for the domains of the data set."""

import numpy as np

from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.quotas import allocate_quotas
from bridgekd.selection.ranking import Ranking, SelectionPool
from bridgekd.selection.strategy import Strategy, WithAlpha


def domains(pool: SelectionPool, n_selected: int, options: WithAlpha, seed: int) -> Ranking:
    """Return greedy picks with a quota for each domain, in proportion to its size in the pool.

    Distances count across domains. Without domains this is `bridge_greedy`.
    """
    quotas = allocate_quotas(np.bincount(pool.domains), n_selected)
    return select_greedy(pool, n_selected, options.alpha, pool.domains, quotas)


STRATEGY = Strategy(
    name="domains",
    title="BRIDGE with domain quotas",
    summary="Picks as bridge_greedy does, with a quota for each domain by its share of the pool.",
    paper="proportional allocation, Neyman 1934",
    options=WithAlpha,
    rank=domains,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_costs=True,
)
