"""Strategies against packages that have their algorithm.

The numbers were computed once: picks of `swapped` with `kt.refine_K(K, picks, unique=True)` of
goodpoints 0.6.3, repeated until nothing changes; picks of `herding` with `MaxHerding(metric="rbf",
metric_dict={"gamma": 1 / sigma**2})` and typicality with `_typicality` of scikit-activeml 1.0.1.
All get the rows of `whiten`, or the kernel of `build_kernel`, in float64.
"""

import numpy as np
import pytest

from bridgekd.selection.features import whiten
from bridgekd.selection.ranking import SelectionPool, draw_order, rank_normalize
from bridgekd.selection.strategies.swapped import build_kernel, swap_picks
from bridgekd.selection.strategies.typical import compute_typicality
from selection_pools import make_pool, rank

N, SEED = 200, 2
SWAPPED = [62, 171, 69, 91, 1, 168, 170, 17, 163, 29, 181, 16, 110, 138, 66]
HERDING = [16, 181, 0, 148, 57, 144, 179, 167, 164, 158, 73, 30, 176, 172, 82]
TYPICALITY = [0.88489, 0.82795, 0.8686, 0.88969, 0.80819, 0.83647, 0.89108, 0.85315, 0.83581,
              0.82477, 0.85941, 0.8408]  # fmt: skip


def build_pool():
    _, difficulty, embeddings = make_pool(N, SEED)
    return SelectionPool(rank_normalize(difficulty), embeddings, np.arange(N) % 3, embeddings[:0])


def test_swapped_makes_the_swaps_of_goodpoints():
    picks = swap_picks(build_kernel(build_pool()), draw_order(N, 0)[:15])
    assert picks.tolist() == SWAPPED


def test_herding_without_difficulty_is_max_herding_of_scikit_activeml():
    ids, difficulty, embeddings = make_pool(N, SEED)
    ranking = rank("herding", ids, difficulty, embeddings, 15, alpha=0)
    assert ranking.rows[:15].tolist() == HERDING


def test_typicality_is_that_of_scikit_activeml():
    """Five clusters of 40 rows each, so the mean is over 20 neighbors."""
    typicality = compute_typicality(whiten(build_pool()), np.arange(N) // 40)
    assert typicality[:12] == pytest.approx(TYPICALITY, abs=5e-5)
