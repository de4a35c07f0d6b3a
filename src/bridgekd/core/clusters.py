"""Groups of like questions, and how many of each to take."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from bridgekd.core.diversity import Nearest, nearest_picks
from bridgekd.core.draws import stream

_WHOLE = 2 * 10**8  # rows times clusters up to which k-means sees all rows in every round
_ROUNDS = 50
_BATCH, _EPOCHS = 16_384, 2


def k_means(embeddings: np.ndarray, k: int, seed: int) -> Nearest:
    """The cluster (0 to k - 1) of each of `embeddings` [n, d], and its distance (1 - cos) / 2 to
    the cluster's centre, taken at length 1.

    scikit-learn's k-means from k-means++ seeds; for many rows times clusters its mini-batch form
    (Sculley 2010) from random rows. One thread, since the sums of several come in any order.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rng = stream(seed, "k-means")
    state = int(rng.integers(2**31))
    if len(embeddings) * k <= _WHOLE:
        model = KMeans(k, n_init=1, max_iter=_ROUNDS, random_state=state)
    else:
        first = embeddings[np.sort(rng.permutation(len(embeddings))[:k])]
        model = MiniBatchKMeans(
            k,
            init=first,
            n_init=1,
            batch_size=max(_BATCH, 2 * k),
            max_iter=_EPOCHS,
            random_state=state,
            compute_labels=False,
        )
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows too alike: clusters stay empty
        centres = np.asarray(model.fit(embeddings).cluster_centers_)
    length = np.linalg.norm(centres, axis=1, keepdims=True)
    return nearest_picks(embeddings, centres / np.where(length > 0, length, 1))


def quotas(sizes: np.ndarray, total: int) -> np.ndarray:
    """`total` places shared among groups in proportion to `sizes` [g] by the largest remainder
    (Hamilton), equal remainders to the group that comes first; no group gets more than it has.
    """
    shares = total * sizes / max(1, sizes.sum())
    places = np.floor(shares + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(shares - places, 9), kind="stable")
    places[order[: total - places.sum()]] += 1
    return np.asarray(places)


def medoids(of: Nearest, n_wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """The row nearest to each cluster's centre, largest cluster first, and each one's share of the
    pool; equal sizes and distances go by row.
    """
    order = np.lexsort((of.distance, of.pick))  # stable: equal distances stay in the order of rows
    _, first, sizes = np.unique(of.pick[order], return_index=True, return_counts=True)
    rows = order[first]
    largest = np.lexsort((rows, -sizes))[:n_wanted]
    return rows[largest], sizes[largest] / len(of.pick)
