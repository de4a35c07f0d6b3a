"""The most central question of each of B clusters."""

import numpy as np

from bridgekd.selection.clusters import run_k_means
from bridgekd.selection.diversity import Nearest
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions


def rank_medoids(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return the row nearest to the center of each of B k-means clusters, largest cluster first.

    The score of a pick is its cluster's fraction of the pool; the score of the rest is the distance
    to the selection. If fewer clusters have any rows, because rows are too similar, the farthest
    of the rest follow and `n_filled` counts them.
    """
    if not n_selected:
        return rank_rest(pool, np.empty(0, dtype=np.int64), np.empty(0), 0.0)
    clusters = run_k_means(pool.embeddings, n_selected, seed)
    picks, fractions = find_medoids(clusters, n_selected)
    ranking = rank_rest(pool, picks, fractions, 0.0, cluster=clusters.pick)
    n_filled = n_selected - len(picks)
    if not n_filled:
        return ranking
    picks, score = ranking.rows[:n_selected], ranking.score[:n_selected]
    return rank_rest(pool, picks, score, 0.0, cluster=clusters.pick, n_filled=n_filled)


def find_medoids(clusters: Nearest, n_selected: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row nearest to each cluster's center and the cluster's fraction of the pool.

    Largest cluster first. Equal sizes and equal distances go by row.
    """
    order = np.lexsort((clusters.distance, clusters.pick))  # stable: ties stay in the order of rows
    _, first, sizes = np.unique(clusters.pick[order], return_index=True, return_counts=True)
    rows = order[first]
    largest = np.lexsort((rows, -sizes))[:n_selected]
    return rows[largest], sizes[largest] / len(clusters.pick)


STRATEGY = Strategy(
    name="medoids",
    title="Cluster medoids",
    summary="Takes the most central question of each of B k-means clusters.",
    options=NoOptions,
    rank=rank_medoids,
    needs_embeddings=True,
    uses_seed=True,
)
