"""DEITA: the hardest questions, with a minimum distance between them."""

import numpy as np

from bridgekd.selection.ranking import Ranking, SelectionPool, rank_rest, sort_by_score
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

DEITA_MIN_DISTANCE = 0.05  # a cosine of 0.9, the paper's threshold (our reading)
_BLOCK_SIZE = 1024


def deita(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return the hardest questions that are farther than DEITA_MIN_DISTANCE from earlier picks.

    If fewer than B are, the hardest of the rest follow and `n_filled` counts them. The paper's
    score is complexity times quality; the assistant's difficulty in its place is ours.
    """
    hardest_first = sort_by_score(pool.difficulty, np.arange(len(pool)))
    picks = _pick_distant(pool, hardest_first, n_selected)
    fill = hardest_first[~np.isin(hardest_first, picks)][: n_selected - len(picks)]
    picks = np.concatenate([picks, fill])
    return rank_rest(pool, picks, pool.difficulty[picks], 1.0, n_filled=len(fill))


def _pick_distant(pool: SelectionPool, order: np.ndarray, n_selected: int) -> np.ndarray:
    max_cosine = 1 - 2 * DEITA_MIN_DISTANCE
    picks: list[int] = []
    picked = np.empty((n_selected, pool.embeddings.shape[1]), dtype=np.float32)
    for start in range(0, len(order), _BLOCK_SIZE):
        if len(picks) == n_selected:
            break
        rows = order[start : start + _BLOCK_SIZE]
        block = pool.embeddings[rows]
        closest = (block @ picked[: len(picks)].T).max(axis=1, initial=-1)
        for index in np.flatnonzero(closest < max_cosine):
            if closest[index] < max_cosine and len(picks) < n_selected:
                picked[len(picks)] = block[index]
                picks.append(int(rows[index]))
                np.maximum(closest, block @ block[index], out=closest)
    return np.array(picks, dtype=np.int64)


STRATEGY = Strategy(
    name="deita",
    title="DEITA",
    summary="Takes the hardest questions, skipping those too near to an earlier pick.",
    paper="arXiv 2312.15685",
    options=NoOptions,
    rank=deita,
    needs_difficulty=True,
    needs_embeddings=True,
)
