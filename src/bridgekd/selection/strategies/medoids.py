"""The most central question of each of B clusters."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from bridgekd.rng import make_rng
from bridgekd.selection.diversity import Nearest, find_nearest_picks, normalize_rows
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

FULL_BATCH_SIZE = 2 * 10**8  # rows times clusters up to which every iteration reads all rows
_MAX_ITER = 50
_BATCH_SIZE, _N_EPOCHS = 16_384, 2


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


def run_k_means(
    embeddings: np.ndarray, k: int, seed: int, full_batch_size: int = FULL_BATCH_SIZE
) -> Nearest:
    """Return each row's cluster (0 to k - 1) and its distance to the cluster's center.

    scikit-learn's k-means with k-means++ initialization. If rows times clusters are above
    `full_batch_size`: mini-batch k-means (Sculley 2010) from random rows. Centers have length 1.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rng = make_rng(seed, "k-means")
    state = int(rng.integers(2**31))
    if len(embeddings) * k <= full_batch_size:
        model = KMeans(k, n_init=1, max_iter=_MAX_ITER, random_state=state)
    else:
        model = MiniBatchKMeans(
            k,
            init=embeddings[np.sort(rng.permutation(len(embeddings))[:k])],
            n_init=1,
            batch_size=max(_BATCH_SIZE, 2 * k),
            max_iter=_N_EPOCHS,
            random_state=state,
            compute_labels=False,
        )
    # One thread: several threads add in any order, which changes the last bits.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # similar rows leave clusters empty
        centers = np.asarray(model.fit(embeddings).cluster_centers_)
    return find_nearest_picks(embeddings, normalize_rows(centers))


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
