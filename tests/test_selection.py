"""The contract that every strategy keeps, and the greedy rule against one written anew here."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bridgekd.core.difficulty import rank_normalise
from bridgekd.core.diversity import centred, coverage, distances_to
from bridgekd.core.selection import STRATEGIES, rank
from bridgekd.errors import BadInput


def a_pool(n, seed, d=6):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, d)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [f"q{i:03d}" for i in range(n)], rng.gamma(2.0, size=n).round(1), embeddings


def ranked(strategy, ids, difficulty, embeddings, n_chosen=5, alpha=0.5, seed=0):
    return rank(strategy, ids, difficulty, embeddings, n_chosen=n_chosen, alpha=alpha, seed=seed)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 9), share=st.floats(0, 1))
def test_a_ranking_is_a_permutation_of_the_pool_with_b_chosen_first(strategy, n, seed, share):
    ids, difficulty, embeddings = a_pool(n, seed)
    n_chosen = int(share * n)
    picks = ranked(strategy, ids, difficulty, embeddings, n_chosen, seed=seed)
    assert sorted(p.id for p in picks) == ids
    assert [p.rank for p in picks] == list(range(n))
    assert [p.chosen for p in picks] == [True] * n_chosen + [False] * (n - n_chosen)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_neither_the_order_of_the_pool_nor_a_second_call_changes_a_ranking(strategy):
    ids, difficulty, embeddings = a_pool(60, 3)
    before = difficulty.copy(), embeddings.copy()
    first = ranked(strategy, ids, difficulty, embeddings)
    order = np.random.default_rng(1).permutation(60)
    shuffled = [ids[i] for i in order], difficulty[order], embeddings[order]
    assert ranked(strategy, *shuffled) == first
    assert (difficulty == before[0]).all() and (embeddings == before[1]).all()


def test_another_seed_draws_other_random_picks():
    pool = a_pool(60, 3)
    assert ranked("random", *pool, seed=0) != ranked("random", *pool, seed=1)


@pytest.mark.parametrize("strategy", ["bridge", "hardest", "diverse"])
def test_equal_scores_go_by_id(strategy):
    ids = ["c", "a", "b"]
    same = np.ones((3, 2), dtype=np.float32) / np.sqrt(2, dtype=np.float32)
    picks = ranked(strategy, ids, np.ones(3), same, n_chosen=2)
    assert [p.id for p in picks] == ["a", "b", "c"]


def brute_force(ids, difficulty, embeddings, n_chosen, alpha):
    """The greedy rule as method.md states it, with no cleverness."""
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    places = rank_normalise(difficulty)
    chosen = []
    while len(chosen) < n_chosen:
        best, best_score = None, -1.0
        for i in order:
            if i in chosen:
                continue
            v = min(((1 - float(embeddings[i] @ embeddings[j])) / 2 for j in chosen), default=1.0)
            score = alpha * places[i] + (1 - alpha) * v
            if score > best_score + 1e-6:
                best, best_score = i, score
        chosen.append(best)
    return [ids[i] for i in chosen]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_bridge_is_the_exact_greedy_choice(alpha, seed):
    ids, difficulty, embeddings = a_pool(30, seed)
    picks = ranked("bridge", ids, difficulty, embeddings, 8, alpha=alpha)
    wanted = brute_force(ids, difficulty, embeddings, 8, alpha)
    assert [p.id for p in picks[:8]] == wanted


def test_a_pick_names_its_nearest_earlier_pick_and_its_distance():
    ids, difficulty, embeddings = a_pool(30, 5)
    picks = ranked("bridge", ids, difficulty, embeddings, 6)[:6]
    assert (picks[0].distance, picks[0].nearest) == (1.0, None)
    row = {id: i for i, id in enumerate(ids)}
    for place, pick in enumerate(picks[1:], start=1):
        to = {
            p.id: (1 - embeddings[row[pick.id]] @ embeddings[row[p.id]]) / 2 for p in picks[:place]
        }
        assert pick.nearest == min(to, key=to.get)
        assert pick.distance == pytest.approx(min(to.values()), abs=1e-6)


def test_diverse_picks_cover_the_pool_better_than_the_hardest():
    ids, difficulty, embeddings = a_pool(300, 7)
    row = {id: i for i, id in enumerate(ids)}
    far = {}
    for strategy in ("diverse", "hardest"):
        picks = ranked(strategy, ids, difficulty, embeddings, 20)
        far[strategy] = coverage(embeddings, np.array([row[p.id] for p in picks if p.chosen]))[1]
    assert far["diverse"] < far["hardest"]


def test_ranks_share_ties_and_end_at_one():
    assert rank_normalise(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [0.5, 0.0, 0.5, 1.0]
    assert rank_normalise(np.array([4.0])).tolist() == [0.0]


def test_a_loss_that_is_no_number_is_named():
    with pytest.raises(BadInput, match=r"row 1 of the pool is nan.*learning_rate"):
        rank_normalise(np.array([1.0, np.nan]))


def test_centring_makes_distances_count_where_all_embeddings_share_one_direction():
    _, _, embeddings = a_pool(200, 1)
    crowded = embeddings + 20 * np.eye(1, embeddings.shape[1], dtype=np.float32)
    crowded /= np.linalg.norm(crowded, axis=1, keepdims=True)
    assert distances_to(crowded, 0).max() < 0.01
    assert distances_to(centred(crowded), 0).max() > 0.5
    assert np.linalg.norm(centred(crowded), axis=1) == pytest.approx(1, abs=1e-5)
