"""k-means clusters of a pool."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from bridgekd.rng import make_rng
from bridgekd.selection.diversity import Nearest, find_nearest_picks, normalize_rows

FULL_BATCH_SIZE = 2 * 10**8  # rows times clusters up to which every iteration reads all rows
_MAX_ITER = 50
_BATCH_SIZE, _N_EPOCHS = 16_384, 2


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
