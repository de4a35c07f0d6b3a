"""TypiClust inside proportional strata: typical questions of every part of the pool.

At a low budget typical examples teach more than atypical ones (Hacohen, Dekel and Weinshall, arXiv
2202.02794; as code in avihu111/TypiClust). Strata keep the shares of the domains, which TypiClust
alone does not.
"""

import numpy as np

from bridgekd.selection.clusters import run_k_means
from bridgekd.selection.diversity import find_nearest_picks, normalize_rows
from bridgekd.selection.features import fit_whitening
from bridgekd.selection.quotas import allocate_quotas, group_pool
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

N_NEIGHBORS = 20  # or half of the cluster, if that is fewer
MAX_SMALL = 5  # clusters with so few members have no typical question


def rank_typical(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return the most typical question of each cluster of each stratum; typicality is the score.

    Strata are the domains, without domains the clusters of `group_pool`. A stratum with n_h picks
    is cut into n_h clusters by k-means, more by one for each question of an earlier purchase in it.
    Clusters with the fewest questions of earlier purchases come first, larger ones first among
    equals. `n_filled` counts the picks that are not the first of their cluster or are from a
    cluster of at most MAX_SMALL. Our readings: the strata, whitened embeddings of length 1, no
    limit of 500 clusters, and the second most typical question of each cluster where clusters run
    out. The rest is ranked by typicality.
    """
    whitening = fit_whitening(pool.embeddings)
    rows = normalize_rows(whitening.apply(pool.embeddings))
    strata = pool.domains
    if len(np.unique(strata)) < 2:
        strata = group_pool(pool, "cluster", n_selected, seed)
    quotas = allocate_quotas(np.bincount(strata), n_selected)
    near_earlier = np.empty(0, dtype=np.int64)  # the question most similar to each earlier one
    if len(pool.already_queried):
        earlier = normalize_rows(whitening.apply(pool.already_queried))
        near_earlier = find_nearest_picks(earlier, rows).pick
    typicality, round_number = np.zeros(len(pool)), np.zeros(len(pool), dtype=np.int64)
    picks, is_filled = [], []
    for stratum in np.flatnonzero(quotas):
        members = np.flatnonzero(strata == stratum)
        n_queried = np.bincount(near_earlier, minlength=len(pool))[members]
        k = min(len(members), int(quotas[stratum] + n_queried.sum()))
        clusters = run_k_means(rows[members], k, seed).pick
        typicality[members] = compute_typicality(rows[members], clusters)
        order, n_first = rank_members(typicality[members], clusters, n_queried)
        picks.append(members[order[: quotas[stratum]]])
        is_filled.append(np.arange(len(picks[-1])) >= n_first)
        round_number[picks[-1]] = np.arange(len(picks[-1]))
    if not picks:
        return rank_rest(pool, np.empty(0, dtype=np.int64), np.empty(0), typicality)
    # Each stratum gets its share of every beginning of the order, for a budget that ends early.
    chosen = np.concatenate(picks)
    position = (round_number[chosen] + 0.5) / quotas[strata[chosen]]
    chosen = chosen[np.lexsort((chosen, position))]
    n_filled = int(np.concatenate(is_filled).sum())
    return rank_rest(pool, chosen, typicality[chosen], typicality, n_filled=n_filled)


def compute_typicality(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return 1 / mean distance to the nearest rows of the same cluster, [n]; 0 for a single row.

    rows: [n, d]. clusters: [n]. Equal rows count as at a distance of 1e-5, as in the paper's code.
    """
    from sklearn.neighbors import NearestNeighbors

    typicality = np.zeros(len(rows))
    by_cluster = np.argsort(clusters, kind="stable")
    for members in np.split(by_cluster, np.flatnonzero(np.diff(clusters[by_cluster])) + 1):
        k = min(N_NEIGHBORS, len(members) // 2)
        if not k:
            continue
        points = rows[members].astype(np.float64)
        model = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
        distance = model.kneighbors()[0].mean(axis=1)
        typicality[members] = 1 / (np.round(distance, 6) + 1e-5)
    return typicality


def rank_members(
    typicality: np.ndarray, clusters: np.ndarray, n_queried: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the order of a stratum's rows, and how many are the first of a large cluster.

    The most typical row of each large cluster comes first, then the second of each, and so on; then
    those of small clusters likewise. Clusters go by rising number of earlier purchases (`n_queried`
    [n], by row), then by falling size.
    """
    size = np.bincount(clusters)
    queried = np.bincount(clusters, weights=n_queried)
    by_cluster = np.lexsort((-typicality, clusters))
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    place = np.empty(len(clusters), dtype=np.int64)
    place[by_cluster] = np.arange(len(clusters)) - starts[clusters[by_cluster]]
    is_small = size[clusters] <= MAX_SMALL
    order = np.lexsort((-size[clusters], queried[clusters], place, is_small))
    return order, int(np.count_nonzero(size > MAX_SMALL))


STRATEGY = Strategy(
    name="typical",
    title="Typical questions",
    summary="Takes the most typical question of each cluster, with a proportional quota for each "
    "domain.",
    paper="arXiv 2202.02794, inside strata",
    options=NoOptions,
    rank=rank_typical,
    needs_embeddings=True,
    uses_seed=True,
)
