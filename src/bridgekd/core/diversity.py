"""How far questions lie from one another: v(x | S) = min over s in S of (1 - cos(e_x, e_s)) / 2, in
[0, 1].
"""

import numpy as np


def distances_to(embeddings: np.ndarray, row: int) -> np.ndarray:
    """(1 - cos) / 2 of every row of L2-normalised `embeddings` [n, d] to one of them: float32 [n]
    in [0, 1].
    """
    return np.asarray(np.clip((1 - embeddings @ embeddings[row]) / 2, 0, 1))


def coverage(embeddings: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Mean and largest distance of the pool to its nearest pick: the two figures that judge a
    choice.
    """
    nearest = np.ones(len(embeddings), dtype=np.float32)
    for row in chosen:
        np.minimum(nearest, distances_to(embeddings, int(row)), out=nearest)
    return float(nearest.mean()), float(nearest.max())
