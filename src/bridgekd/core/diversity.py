"""How far questions lie from one another: v(x | S) = min over s in S of (1 - cos(e_x, e_s)) / 2, in
[0, 1].
"""

import numpy as np


def distances_to(embeddings: np.ndarray, row: int) -> np.ndarray:
    """(1 - cos) / 2 of every row of L2-normalised `embeddings` [n, d] to one of them: float32 [n]
    in [0, 1].
    """
    return np.asarray(np.clip((1 - embeddings @ embeddings[row]) / 2, 0, 1))


def centred(embeddings: np.ndarray) -> np.ndarray:
    """`embeddings` [n, d] without their mean, each row of length 1 again (a zero row stays zero).

    Ours. Mean-pooled hidden states of a language model share one large direction (Mu and Viswanath,
    arXiv 1702.01417; Ethayarajh, arXiv 1909.00512), so that all distances are near 0 and diversity
    would not count beside a difficulty in [0, 1].
    """
    moved = embeddings - embeddings.mean(axis=0, keepdims=True)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.where(length > 0, length, 1), dtype=np.float32)


def coverage(embeddings: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Mean and largest distance of the pool to its nearest pick: the two figures that judge a
    choice.
    """
    nearest = np.ones(len(embeddings), dtype=np.float32)
    for row in chosen:
        np.minimum(nearest, distances_to(embeddings, int(row)), out=nearest)
    return float(nearest.mean()), float(nearest.max())
