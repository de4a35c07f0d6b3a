"""The contract that every strategy keeps, and each rule against one written anew here."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.covariance import oas

from bridgekd.core import clusters, facility, greedy
from bridgekd.core.clusters import quotas
from bridgekd.core.difficulty import rank_normalise
from bridgekd.core.diversity import centred, coverage, distances_to, shrunk, whitened
from bridgekd.core.selection import BY_ALPHA, BY_SEED, DEITA_DISTANCE, STRATEGIES, rank
from bridgekd.edges.rows import read_rows, write_columns, write_rows
from bridgekd.errors import BadInput
from bridgekd.records import Pick

DOMAINS = ("sums", "tales", "maps")


def a_pool(n, seed, d=6):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, d)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [f"q{i:04d}" for i in range(n)], rng.gamma(2.0, size=n).round(1), embeddings


def with_twins(n, seed, d=6):
    """A pool in which a third of the rows have an equal, difficulty included."""
    ids, difficulty, embeddings = a_pool(n, seed, d)
    like = np.arange(n)
    like[: n // 3] = np.random.default_rng(seed).permutation(n)[: n // 3]
    return ids, difficulty[like], embeddings[like]


def domains_of(ids):
    return [DOMAINS[int(id[1:]) % 7 % 3] for id in ids]


def ranked(strategy, ids, difficulty, embeddings, n_chosen=5, alpha=0.5, seed=0, domains=()):
    return rank(
        strategy,
        ids,
        difficulty,
        embeddings,
        domains=domains,
        n_chosen=n_chosen,
        alpha=alpha,
        seed=seed,
    )


def same(one, other):
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name), equal_nan=True)
        for f in dataclasses.fields(one)
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 9), share=st.sampled_from([0, 0.1, 0.3, 0.8, 1]))
def test_a_ranking_is_a_permutation_of_the_pool_with_b_chosen_first(strategy, n, seed, share):
    pool = with_twins(n, seed)
    n_chosen = int(share * n)
    found = ranked(strategy, *pool, n_chosen, seed=seed, domains=domains_of(pool[0]))
    assert sorted(found.rows) == list(range(n))
    assert found.n_chosen == n_chosen
    assert np.isfinite(found.score).all() and np.isnan(found.distance[n_chosen:]).all()
    if n_chosen:
        assert (found.distance[0], found.nearest[0]) == (1, -1)
        assert not np.isnan(found.distance[:n_chosen]).any()
        assert (found.cluster >= 0).all() and (found.nearest[1:n_chosen] >= 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("make", [a_pool, with_twins])
def test_neither_the_order_of_the_pool_nor_a_second_call_changes_a_ranking(strategy, make):
    ids, difficulty, embeddings = make(60, 3)
    before = difficulty.copy(), embeddings.copy()
    first = ranked(strategy, ids, difficulty, embeddings, 12, domains=domains_of(ids))
    assert same(ranked(strategy, ids, difficulty, embeddings, 12, domains=domains_of(ids)), first)
    order = np.random.default_rng(1).permutation(60)
    names = [ids[i] for i in order]
    shuffled = ranked(
        strategy, names, difficulty[order], embeddings[order], 12, domains=domains_of(names)
    )
    assert shuffled.picks(names) == first.picks(ids)
    assert (difficulty == before[0]).all() and (embeddings == before[1]).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_embeddings_may_stay_on_disk(strategy, tmp_path):
    ids, difficulty, embeddings = a_pool(60, 4)
    np.save(tmp_path / "e.npy", embeddings)
    on_disk = np.load(tmp_path / "e.npy", mmap_mode="r")
    found = ranked(strategy, ids, difficulty, on_disk)
    assert same(found, ranked(strategy, ids, difficulty, embeddings))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"random"}))
def test_equal_scores_go_by_id(strategy):
    ids = ["c", "a", "b"]
    alike = np.ones((3, 2), dtype=np.float32) / np.sqrt(2, dtype=np.float32)
    picks = ranked(strategy, ids, np.ones(3), alike, n_chosen=2).picks(ids)
    assert [p.id for p in picks] == ["a", "b", "c"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_strategies_that_say_so_heed_alpha_and_seed(strategy, monkeypatch):
    monkeypatch.setattr(facility, "EXACT", 10)
    pool = a_pool(60, 3)
    first = ranked(strategy, *pool, 12, alpha=0.3)
    heeds_alpha = not same(ranked(strategy, *pool, 12, alpha=0.7), first)
    heeds_seed = any(
        not same(ranked(strategy, *pool, 12, alpha=0.3, seed=s), first) for s in (1, 2)
    )
    assert (heeds_alpha, heeds_seed) == (strategy in BY_ALPHA, strategy in BY_SEED)


def test_random_choice_needs_no_embeddings_and_is_the_same_without():
    ids, difficulty, embeddings = a_pool(60, 3)
    nowhere = np.empty((60, 0), dtype=np.float32)
    found = ranked("random", ids, np.zeros(60), nowhere)
    assert (found.rows == ranked("random", ids, difficulty, embeddings).rows).all()
    pick = found.picks(ids)[0]
    assert (pick.distance, pick.nearest, pick.cluster) == (None, None, None)


def test_rows_and_columns_on_disk_are_the_same(tmp_path):
    ids, difficulty, embeddings = a_pool(20, 1)
    found = ranked("bridge", ids, difficulty, embeddings)
    write_columns(tmp_path / "columns.parquet", Pick, found.columns(ids))
    write_rows(tmp_path / "rows.parquet", Pick, found.picks(ids))
    assert read_rows(tmp_path / "columns.parquet", Pick) == found.picks(ids)
    assert (tmp_path / "columns.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


def apart(one, other):
    return 0.0 if (one == other).all() else (1 - float(one @ other)) / 2


def brute_force(ids, difficulty, embeddings, n_chosen, alpha):
    """The greedy rule as method.md states it, with no cleverness."""
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    places, exact = rank_normalise(difficulty), embeddings.astype(float)
    chosen = []
    while len(chosen) < n_chosen:
        best, best_score = None, -1.0
        for i in order:
            if i in chosen:
                continue
            v = min((apart(exact[i], exact[j]) for j in chosen), default=1.0)
            score = alpha * places[i] + (1 - alpha) * v
            if score > best_score + 1e-9:
                best, best_score = i, score
        chosen.append(best)
    return chosen


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    make=st.sampled_from([a_pool, with_twins]),
    share=st.floats(0, 1),
)
def test_bridge_is_the_exact_greedy_choice(n, seed, alpha, make, share):
    pool, n_chosen = make(n, seed), int(share * n)
    found = ranked("bridge", *pool, n_chosen, alpha=alpha)
    assert found.rows[:n_chosen].tolist() == brute_force(*pool, n_chosen, alpha)


def plain_greedy(difficulty, embeddings, n_chosen, alpha):
    """Every row against every pick as it comes: picks, scores at picking, distances at the end."""
    places, exact = rank_normalise(difficulty), embeddings.astype(float)
    distance, picks, scores = np.ones(len(places)), [], []
    for _ in range(n_chosen):
        score = alpha * places + (1 - alpha) * distance
        score[picks] = -np.inf
        picks.append(int(np.argmax(score)))
        scores.append(score[picks[-1]])
        to_last = (1 - exact @ exact[picks[-1]]) / 2
        distance = np.minimum(distance, to_last) if picks[1:] else to_last
    return picks, scores, distance


@pytest.mark.parametrize("front", [16, 200, 8192])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_waiting_rows_change_no_pick(alpha, front, monkeypatch):
    monkeypatch.setattr(greedy, "_FRONT", front)
    ids, difficulty, embeddings = a_pool(2000, 11, d=32)
    found = ranked("bridge", ids, difficulty, embeddings, 200, alpha=alpha)
    picks, scores, distance = plain_greedy(difficulty, embeddings, 200, alpha)
    assert found.rows[:200].tolist() == picks
    assert found.score[:200].tolist() == pytest.approx(scores, abs=1e-6)
    assert found.coverage == pytest.approx((distance.mean(), distance.max()), abs=1e-6)
    assert coverage(embeddings, found.rows[:200]) == pytest.approx(found.coverage, abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_pick_names_its_nearest_earlier_pick_and_the_rest_their_cluster(strategy):
    ids, difficulty, embeddings = a_pool(30, 5)
    found = ranked(strategy, ids, difficulty, embeddings, 6)
    to = (1 - embeddings.astype(float) @ embeddings[found.rows[:6]].T) / 2
    for place in range(1, 6):
        earlier = to[found.rows[place], :place]
        assert found.nearest[place] == found.rows[earlier.argmin()]
        assert found.distance[place] == pytest.approx(earlier.min(), abs=1e-6)
    assert found.to_choice == pytest.approx(to[found.rows].min(axis=1), abs=1e-6)
    if strategy not in ("medoids", "clusters"):
        assert found.cluster.tolist() == to[found.rows].argmin(axis=1).tolist()


def facility_objective(difficulty, embeddings, picks, alpha, n_chosen):
    exact = embeddings.astype(float)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    similarity = (1 + exact @ exact[picks].T) / 2
    served = similarity.max(axis=1).mean() if len(picks) else 0.0
    own = rank_normalise(difficulty)[picks].sum() / n_chosen
    return alpha * own + (1 - alpha) * served


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 25), seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.5, 1.0]))
def test_facility_is_the_exact_greedy_choice(n, seed, alpha):
    ids, difficulty, embeddings = a_pool(n, seed)
    n_chosen, picks = max(1, n // 2), []
    for _ in range(n_chosen):
        worth = {
            i: facility_objective(difficulty, embeddings, [*picks, i], alpha, n_chosen)
            for i in range(n)
            if i not in picks
        }
        picks.append(min(i for i in worth if worth[i] > max(worth.values()) - 1e-10))
    found = ranked("facility", ids, difficulty, embeddings, n_chosen, alpha=alpha)
    assert found.rows[:n_chosen].tolist() == picks
    whole = facility_objective(difficulty, embeddings, picks, alpha, n_chosen)
    assert found.score[:n_chosen].sum() == pytest.approx(whole, abs=1e-6)


def test_stochastic_facility_is_within_a_percent_of_the_exact(monkeypatch):
    ids, difficulty, embeddings = a_pool(3000, 2, d=16)
    worth = []
    for exact in (10_000, 1000):
        monkeypatch.setattr(facility, "EXACT", exact)
        picks = ranked("facility", ids, difficulty, embeddings, 60).rows[:60]
        worth.append(facility_objective(difficulty, embeddings, picks, 0.5, 60))
    assert 0.99 * worth[0] < worth[1] <= 1.001 * worth[0]


def test_deita_takes_the_hardest_that_are_far_enough_apart():
    ids, difficulty, embeddings = a_pool(400, 6, d=3)
    found = ranked("deita", ids, difficulty, embeddings, 12)
    picks = found.rows[:12]
    assert found.n_filled == 0 and (found.distance[:12] >= DEITA_DISTANCE - 1e-6).all()
    last = difficulty[picks[-1]]
    for passed in set(np.flatnonzero(difficulty > last)) - set(picks):
        harder = picks[difficulty[picks] >= difficulty[passed]]
        near = (1 - embeddings[harder] @ embeddings[passed]) / 2
        assert near.min() <= DEITA_DISTANCE + 1e-6


def test_deita_fills_up_with_the_hardest_and_says_so():
    ids, difficulty, embeddings = a_pool(400, 6, d=2)  # a circle holds no more than a dozen
    found = ranked("deita", ids, difficulty, embeddings, 60)
    n_apart = 60 - found.n_filled
    assert 4 <= n_apart <= 14
    left = np.setdiff1d(np.arange(400), found.rows[:n_apart])
    wanted = np.sort(difficulty[left])[::-1][: found.n_filled]
    assert difficulty[found.rows[n_apart:60]].tolist() == wanted.tolist()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8), share=st.floats(0, 1))
def test_quotas_are_proportional_and_add_up(sizes, share):
    sizes, total = np.array(sizes), int(share * sum(sizes))
    found = quotas(sizes, total)
    assert found.sum() == total and (found <= sizes).all() and (found >= 0).all()
    assert (np.abs(found - total * sizes / max(1, sizes.sum())) < 1).all()


def test_the_largest_remainder_gets_the_place_that_is_left():
    assert quotas(np.array([47, 16, 37]), 10).tolist() == [5, 1, 4]
    assert quotas(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]


def test_every_domain_gives_its_share():
    ids, difficulty, embeddings = a_pool(140, 8)
    domains = np.array(domains_of(ids))
    found = ranked("domains", ids, difficulty, embeddings, 21, domains=domains.tolist())
    taken = [np.count_nonzero(domains[found.rows[:21]] == name) for name in DOMAINS]
    assert taken == [9, 6, 6]
    first = [found.rows[:21][domains[found.rows[:21]] == name][0] for name in DOMAINS]
    assert ranked("bridge", ids, difficulty, embeddings, 1).rows[0] in first


def test_without_domains_the_domains_strategy_is_bridge():
    pool = a_pool(80, 9)
    assert same(ranked("domains", *pool, 15), ranked("bridge", *pool, 15))


def groups_of_points(n, k, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    embeddings = np.eye(k, dtype=np.float32)[labels] + 0.01 * rng.normal(size=(n, k))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [f"q{i:04d}" for i in range(n)], rng.gamma(2.0, size=n), embeddings, labels


def test_medoids_are_the_middles_of_the_groups():
    ids, difficulty, embeddings, labels = groups_of_points(300, 5, 0)
    found = ranked("medoids", ids, difficulty, embeddings.astype(np.float32), 5)
    assert sorted(labels[found.rows[:5]]) == list(range(5))
    for row in found.rows[:5]:
        members = embeddings[labels == labels[row]]
        to_mean = np.linalg.norm(members - members.mean(axis=0), axis=1)
        assert np.linalg.norm(embeddings[row] - members.mean(axis=0)) < to_mean.min() + 1e-3


@pytest.mark.parametrize("strategy", ["medoids", "clusters"])
def test_large_pools_are_clustered_in_batches_and_as_surely(strategy, monkeypatch):
    monkeypatch.setattr(clusters, "_WHOLE", 0)
    ids, difficulty, embeddings = with_twins(500, 2)
    first = ranked(strategy, ids, difficulty, embeddings, 50)
    order = np.random.default_rng(1).permutation(500)
    names = [ids[i] for i in order]
    again = ranked(strategy, names, difficulty[order], embeddings[order], 50)
    assert again.picks(names) == first.picks(ids)
    by_chance = ranked("random", ids, difficulty, embeddings, 50)
    assert strategy == "clusters" or first.coverage[0] < by_chance.coverage[0]


def test_clusters_give_their_hardest_in_proportion():
    ids, difficulty, embeddings, _ = groups_of_points(300, 5, 0)
    found = ranked("clusters", ids, difficulty, embeddings.astype(np.float32), 30)
    picks, places = found.rows[:30], np.argsort(found.rows)
    cluster = found.cluster[places]
    for number in np.unique(cluster):
        members = np.flatnonzero(cluster == number)
        mine = np.intersect1d(picks, members)
        assert abs(len(mine) - 30 * len(members) / 300) < 1
        hardest = np.sort(difficulty[members])[::-1][: len(mine)]
        assert np.sort(difficulty[mine])[::-1].tolist() == hardest.tolist()


def test_diverse_picks_cover_the_pool_better_than_the_hardest():
    ids, difficulty, embeddings = a_pool(300, 7)
    far = {}
    for strategy in ("diverse", "hardest"):
        found = ranked(strategy, ids, difficulty, embeddings, 20)
        far[strategy] = coverage(embeddings, found.rows[:20])[1]
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


def two_clouds():
    """300 rows that spread widely in eight directions, and 300 elsewhere that do so narrowly in
    eight others.
    """
    rng = np.random.default_rng(0)
    rows = np.zeros((600, 17))
    rows[:300, :8], rows[300:, 8:16] = rng.normal(size=(2, 300, 8))
    rows[300:] *= 0.05
    rows[:, 16] = np.where(np.arange(600) < 300, 2.0, -2.0)
    return (rows + 3).astype(np.float32)


def test_a_narrow_cloud_is_chosen_from_once_it_is_whitened():
    ids, narrow = [f"{k:04d}" for k in range(600)], []
    for space in (centred, whitened):
        found = rank(
            "diverse", ids, np.zeros(600), space(two_clouds()), n_chosen=60, alpha=0, seed=0
        )
        narrow.append(int((found.rows[:60] >= 300).sum()))
    assert narrow[0] < 5 and 20 < narrow[1] < 40


def test_whitened_rows_spread_alike_in_every_direction():
    uneven = np.random.default_rng(2).normal(size=(600, 6)) * [1, 2, 3, 4, 5, 6] + 9
    moved = whitened(uneven.astype(np.float32))
    assert np.linalg.norm(moved, axis=1) == pytest.approx(1, abs=1e-5)
    spread = np.linalg.eigvalsh(np.cov(moved.T))
    assert spread.min() > 0.5 * spread.max()


def test_the_covariance_is_shrunk_as_by_scikit_learn():
    rows = np.random.default_rng(1).normal(size=(40, 12)) * np.arange(1, 13)
    rows -= rows.mean(axis=0)
    told, _ = oas(rows)
    found = shrunk(np.linalg.eigvalsh(rows.T @ rows / len(rows)), len(rows))
    assert found == pytest.approx(np.linalg.eigvalsh(told))


def test_fewer_rows_than_directions_can_be_whitened():
    assert np.isfinite(whitened(a_pool(20, 2, d=64)[2])).all()
    assert np.isfinite(whitened(np.zeros((3, 4), dtype=np.float32))).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_asked_before_is_not_ranked_again(strategy):
    ids, difficulty, embeddings = a_pool(60, 3)
    asked = {"q003", "q017", "q059"}
    found = rank(strategy, ids, difficulty, embeddings, asked=asked, n_chosen=9, alpha=0.5, seed=0)
    assert sorted(p.id for p in found.picks(ids)) == sorted(set(ids) - asked)


def test_new_picks_keep_their_distance_from_what_was_asked():
    """Alpha 0: k-center that goes on where earlier rounds ended."""
    ids, difficulty, embeddings = a_pool(80, 5)
    settings = {"alpha": 0.0, "seed": 0}
    whole = rank("bridge", ids, difficulty, embeddings, n_chosen=8, **settings)
    first = [p.id for p in whole.picks(ids)[:3]]
    later = rank("bridge", ids, difficulty, embeddings, asked=first, n_chosen=5, **settings)
    assert [p.id for p in later.picks(ids)[:5]] == [p.id for p in whole.picks(ids)[3:8]]
