"""Proportional quotas: each domain or cluster of the pool gets its share of the picks.

Score-based strategies crowd into the groups that they score highest. Proportional allocation
(Neyman 1934) prevents this: every group gets its share of the budget, and the strategy ranks the
questions inside each group.
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
