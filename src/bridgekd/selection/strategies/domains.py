"""BRIDGE's selection within proportional quotas of the data set's own domains."""

import numpy as np

from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.ranking import Ranking, SelectionPool
from bridgekd.selection.strategy import Strategy, WithAlpha


def domains(pool: SelectionPool, n_selected: int, options: WithAlpha, seed: int) -> Ranking:
    """Return greedy picks with a quota for each domain, as large as its share of the pool.

    Distances count across domains. Without domains this is `bridge_greedy`.
    """
    quotas = allocate_quotas(np.bincount(pool.domains), n_selected)
    return select_greedy(pool, n_selected, options.alpha, pool.domains, quotas)


def allocate_quotas(sizes: np.ndarray, total: int) -> np.ndarray:
    """Return `total` places shared among groups in proportion to their `sizes` [g].

    Largest remainder (Hamilton); of equal remainders the first group wins; no group gets more than
    its size.
    >>> allocate_quotas(np.array([47, 16, 37]), 10).tolist()
    [5, 1, 4]
    """
    shares = total * sizes / max(1, sizes.sum())
    quotas = np.floor(shares + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(shares - quotas, 9), kind="stable")
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
    uses_seed=False,
    is_nested=False,
)
