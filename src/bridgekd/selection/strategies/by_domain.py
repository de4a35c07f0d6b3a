"""BRIDGE's selection with proportional quotas for the domains of the data set."""

import numpy as np

from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.ranking import Ranking, SelectionPool
from bridgekd.selection.strategy import Strategy, WithAlpha


def domains(pool: SelectionPool, n_selected: int, options: WithAlpha, seed: int) -> Ranking:
    """Return greedy picks with a quota for each domain, in proportion to its size in the pool.

    Distances count across domains. Without domains this is `bridge_greedy`.
    """
    quotas = allocate_quotas(np.bincount(pool.domains), n_selected)
    return select_greedy(pool, n_selected, options.alpha, pool.domains, quotas)


def allocate_quotas(sizes: np.ndarray, total: int) -> np.ndarray:
    """Return `total` picks allocated to groups in proportion to their `sizes` [g].

    Largest remainder (Hamilton). Of equal remainders the first group gets the pick. No quota is
    larger than its group.
    >>> allocate_quotas(np.array([47, 16, 37]), 10).tolist()
    [5, 1, 4]
    """
    exact = total * sizes / max(1, sizes.sum())
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(exact - quotas, 9), kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return np.asarray(quotas)


STRATEGY = Strategy(
    name="domains",
    title="BRIDGE with domain quotas",
    summary="Picks as bridge_greedy does, with a quota for each domain by its share of the pool.",
    paper="proportional allocation, Neyman 1934",
    options=WithAlpha,
    rank=domains,
    needs_difficulty=True,
    needs_embeddings=True,
)
