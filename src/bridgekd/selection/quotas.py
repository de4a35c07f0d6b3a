"""Quotas: each domain or cluster of the pool gets its share of the picks.

Score-based strategies crowd into the groups that they score highest. Quotas prevent this: every
group gets its share of the budget, and the strategy ranks the questions inside each group. The
shares are those of the pool (proportional allocation, Neyman 1934), or those of a mixture.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from bridgekd.selection.clusters import run_k_means
from bridgekd.selection.features import whiten
from bridgekd.selection.ranking import SelectionPool

QuotaGroups = Literal["domain", "cluster"]
PICKS_PER_CLUSTER, MAX_CLUSTERS = 10, 50  # ours: a quota of ten picks can follow its share
QUESTIONS_PER_STRATUM = 100  # ours: the mean over so many has a tenth of one question's noise


def allocate_quotas(sizes: np.ndarray, total: int, shares: np.ndarray | None = None) -> np.ndarray:
    """Return `total` picks allocated to groups in proportion to `shares` [g], or else to `sizes`.

    Largest remainder (Hamilton). Of equal remainders the first group gets the pick. No quota is
    larger than its group, [g] `sizes`: what a full group cannot take is divided among the others by
    their shares, or by their sizes if they have none. `total` is at most the sum of the sizes.
    >>> allocate_quotas(np.array([47, 16, 37]), 10).tolist()
    [5, 1, 4]
    >>> allocate_quotas(np.array([47, 2, 37]), 10, np.array([0.2, 0.6, 0.2])).tolist()
    [4, 2, 4]
    """
    weights = sizes if shares is None else shares
    quotas, is_open = np.zeros(len(sizes), dtype=np.int64), sizes > 0
    while True:
        left = total - int(quotas[~is_open].sum())
        open_weights = np.where(is_open, weights, 0)
        if open_weights.sum() <= 0:
            open_weights = np.where(is_open, sizes, 0)
        exact = left * open_weights / max(open_weights.sum(), 1e-300)
        is_full = is_open & (exact >= sizes)
        if not is_full.any():
            break
        quotas[is_full], is_open = sizes[is_full], is_open & ~is_full
    quotas[is_open] = np.floor(exact[is_open] + 1e-9).astype(np.int64)
    remainder = np.where(is_open, np.round(exact - quotas, 9), -np.inf)
    order = np.argsort(-remainder, kind="stable")
    quotas[order[: total - quotas.sum()]] += 1
    return quotas


def choose_strata(domains: Sequence[str], embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Return the number of each question's stratum, [n]: its domain; without domains its cluster.

    Clusters are those of k-means on `embeddings` [n, d], one for QUESTIONS_PER_STRATUM questions
    and at most 50.
    """
    names, numbers = np.unique(np.array(domains), return_inverse=True)
    k = min(MAX_CLUSTERS, len(domains) // QUESTIONS_PER_STRATUM)
    if len(names) > 1 or k < 2 or not embeddings.shape[1]:
        return np.asarray(numbers)
    return run_k_means(embeddings, k, seed).pick


def group_pool(pool: SelectionPool, by: QuotaGroups, n_selected: int, seed: int) -> np.ndarray:
    """Return the number of each question's group, [n]: its domain, or its cluster.

    Clusters are those of k-means on whitened embeddings of length 1, one for ten picks and at most
    50. Numbers of groups may be missing.
    """
    if by == "domain":
        return pool.domains
    k = min(MAX_CLUSTERS, n_selected // PICKS_PER_CLUSTER, len(pool))
    if k < 2:
        return np.zeros(len(pool), dtype=np.int64)
    return run_k_means(whiten(pool), k, seed).pick
