"""Every strategy's rule against a plain implementation of it."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bridgekd.errors import InputError
from bridgekd.io.row_files import read_rows, write_columns, write_rows
from bridgekd.records import Pick
from bridgekd.selection.diversity import center_embeddings, find_nearest_picks
from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.ranking import SelectionPool, rank_normalize
from bridgekd.selection.strategies.by_domain import allocate_quotas
from bridgekd.selection.strategies.deita import DEITA_MIN_DISTANCE
from bridgekd.selection.strategies.medoids import find_medoids, run_k_means
from selection_pools import DOMAINS, get_domains, make_pool, make_twins, rank, to_picks


def test_rows_and_columns_on_disk_are_the_same(tmp_path):
    ids, difficulty, embeddings = make_pool(20, 1)
    ranking = rank("bridge_greedy", ids, difficulty, embeddings)
    write_columns(tmp_path / "columns.parquet", Pick, ranking.to_columns(ids))
    write_rows(tmp_path / "rows.parquet", Pick, to_picks(ranking, ids))
    assert read_rows(tmp_path / "columns.parquet", Pick) == to_picks(ranking, ids)
    assert (tmp_path / "columns.parquet").read_bytes() == (tmp_path / "rows.parquet").read_bytes()


def compute_distance(a, b):
    return 0.0 if (a == b).all() else (1 - float(a @ b)) / 2


def brute_force(ids, difficulty, embeddings, n_selected, alpha):
    """The greedy rule as method.md states it, without optimization."""
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    difficulty_rank, exact = rank_normalize(difficulty), embeddings.astype(float)
    selected = []
    while len(selected) < n_selected:
        best, best_score = None, -1.0
        for i in order:
            if i in selected:
                continue
            v = min((compute_distance(exact[i], exact[j]) for j in selected), default=1.0)
            score = alpha * difficulty_rank[i] + (1 - alpha) * v
            if score > best_score + 1e-9:
                best, best_score = i, score
        selected.append(best)
    return selected


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    alpha=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    make=st.sampled_from([make_pool, make_twins]),
    fraction=st.floats(0, 1),
)
def test_bridge_is_the_exact_greedy_choice(n, seed, alpha, make, fraction):
    pool, n_selected = make(n, seed), int(fraction * n)
    ranking = rank("bridge_greedy", *pool, n_selected, alpha=alpha)
    assert ranking.rows[:n_selected].tolist() == brute_force(*pool, n_selected, alpha)


def plain_greedy(difficulty, embeddings, n_selected, alpha):
    """Every row against every pick as it comes: picks, scores at picking, distances at the end."""
    difficulty_rank, exact = rank_normalize(difficulty), embeddings.astype(float)
    distance, picks, scores = np.ones(len(difficulty_rank)), [], []
    for _ in range(n_selected):
        score = alpha * difficulty_rank + (1 - alpha) * distance
        score[picks] = -np.inf
        picks.append(int(np.argmax(score)))
        scores.append(score[picks[-1]])
        to_last = (1 - exact @ exact[picks[-1]]) / 2
        distance = np.minimum(distance, to_last) if picks[1:] else to_last
    return picks, scores, distance


@pytest.mark.parametrize("size", [16, 200, 8192])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_waiting_rows_change_no_pick(alpha, size):
    _, difficulty, embeddings = make_pool(2000, 11, d=32)
    domains, nothing = np.zeros(2000, dtype=int), np.empty((0, 32), dtype=np.float32)
    pool = SelectionPool(rank_normalize(difficulty), embeddings, domains, nothing)
    ranking = select_greedy(pool, 200, alpha, active_set_size=size)
    picks, scores, distance = plain_greedy(difficulty, embeddings, 200, alpha)
    assert ranking.rows[:200].tolist() == picks
    assert ranking.score[:200].tolist() == pytest.approx(scores, abs=1e-6)
    assert ranking.distance_to_selection == pytest.approx(distance[ranking.rows], abs=1e-6)


def facility_objective(difficulty, embeddings, picks, alpha, n_selected):
    exact = embeddings.astype(float)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    similarity = (1 + exact @ exact[picks].T) / 2
    served = similarity.max(axis=1).mean() if len(picks) else 0.0
    own = rank_normalize(difficulty)[picks].sum() / n_selected
    return alpha * own + (1 - alpha) * served


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 25), seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.5, 1.0]))
def test_facility_is_the_exact_greedy_choice(n, seed, alpha):
    ids, difficulty, embeddings = make_pool(n, seed)
    n_selected, picks = max(1, n // 2), []
    for _ in range(n_selected):
        gain = {
            i: facility_objective(difficulty, embeddings, [*picks, i], alpha, n_selected)
            for i in range(n)
            if i not in picks
        }
        picks.append(min(i for i in gain if gain[i] > max(gain.values()) - 1e-10))
    ranking = rank("facility_location", ids, difficulty, embeddings, n_selected, alpha=alpha)
    assert ranking.rows[:n_selected].tolist() == picks
    total = facility_objective(difficulty, embeddings, picks, alpha, n_selected)
    assert ranking.score[:n_selected].sum() == pytest.approx(total, abs=1e-6)


def test_stochastic_facility_is_within_a_percent_of_the_exact():
    ids, difficulty, embeddings = make_pool(3000, 2, d=16)
    gain = []
    for n in (10_000, 1000):
        ranking = rank("facility_location", ids, difficulty, embeddings, 60, max_exact=n)
        picks = ranking.rows[:60]
        gain.append(facility_objective(difficulty, embeddings, picks, 0.5, 60))
    assert 0.99 * gain[0] < gain[1] <= 1.001 * gain[0]


def test_deita_takes_hardest_questions_with_minimum_distance():
    ids, difficulty, embeddings = make_pool(400, 6, d=3)
    ranking = rank("deita", ids, difficulty, embeddings, 12)
    picks = ranking.rows[:12]
    assert ranking.n_filled == 0 and (ranking.distance[:12] >= DEITA_MIN_DISTANCE - 1e-6).all()
    last = difficulty[picks[-1]]
    for passed in set(np.flatnonzero(difficulty > last)) - set(picks):
        harder = picks[difficulty[picks] >= difficulty[passed]]
        near = (1 - embeddings[harder] @ embeddings[passed]) / 2
        assert near.min() <= DEITA_MIN_DISTANCE + 1e-6


def test_deita_fills_up_with_hardest_and_counts_them():
    ids, difficulty, embeddings = make_pool(400, 6, d=2)  # a circle holds no more than a dozen
    ranking = rank("deita", ids, difficulty, embeddings, 60)
    n_distant = 60 - ranking.n_filled
    assert 4 <= n_distant <= 14
    left = np.setdiff1d(np.arange(400), ranking.rows[:n_distant])
    expected = np.sort(difficulty[left])[::-1][: ranking.n_filled]
    assert difficulty[ranking.rows[n_distant:60]].tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8), fraction=st.floats(0, 1))
def test_quotas_are_proportional_and_add_up(sizes, fraction):
    sizes, total = np.array(sizes), int(fraction * sum(sizes))
    quotas = allocate_quotas(sizes, total)
    assert quotas.sum() == total and (quotas <= sizes).all() and (quotas >= 0).all()
    assert (np.abs(quotas - total * sizes / max(1, sizes.sum())) < 1).all()


def test_every_domain_gets_its_quota():
    ids, difficulty, embeddings = make_pool(140, 8)
    domains = np.array(get_domains(ids))
    ranking = rank("domains", ids, difficulty, embeddings, 21, domains=domains.tolist())
    taken = [np.count_nonzero(domains[ranking.rows[:21]] == name) for name in DOMAINS]
    assert taken == [9, 6, 6]
    first = [ranking.rows[:21][domains[ranking.rows[:21]] == name][0] for name in DOMAINS]
    assert rank("bridge_greedy", ids, difficulty, embeddings, 1).rows[0] in first


def test_without_domains_the_domains_strategy_is_bridge():
    pool = make_pool(80, 9)
    assert (rank("domains", *pool, 15).rows == rank("bridge_greedy", *pool, 15).rows).all()


def groups_of_points(n, k, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    embeddings = np.eye(k, dtype=np.float32)[labels] + 0.01 * rng.normal(size=(n, k))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [f"q{i:04d}" for i in range(n)], rng.gamma(2.0, size=n), embeddings, labels


def test_medoids_are_the_middles_of_the_groups():
    ids, difficulty, embeddings, labels = groups_of_points(300, 5, 0)
    ranking = rank("medoids", ids, difficulty, embeddings.astype(np.float32), 5)
    assert sorted(labels[ranking.rows[:5]]) == list(range(5))
    for row in ranking.rows[:5]:
        members = embeddings[labels == labels[row]]
        to_mean = np.linalg.norm(members - members.mean(axis=0), axis=1)
        assert np.linalg.norm(embeddings[row] - members.mean(axis=0)) < to_mean.min() + 1e-3


def test_clusters_from_batches_are_deterministic_and_cover_better_than_random():
    ids, difficulty, embeddings = make_twins(500, 2)
    clusters, again = (run_k_means(embeddings, 50, 0, full_batch_size=0) for _ in range(2))
    assert (clusters.pick == again.pick).all()
    random = rank("random", ids, difficulty, embeddings, 50).rows[:50]
    distances = [
        find_nearest_picks(embeddings, embeddings[rows]).distance.mean()
        for rows in (find_medoids(clusters, 50)[0], random)
    ]
    assert distances[0] < distances[1]


def test_diverse_picks_cover_the_pool_better_than_the_hardest():
    pool = make_pool(300, 7)
    diverse, hardest = (rank(name, *pool, 20) for name in ("diverse", "hardest"))
    assert diverse.distance_to_selection.max() < hardest.distance_to_selection.max()


def test_ranks_share_ties_and_end_at_one():
    assert rank_normalize(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [0.5, 0.0, 0.5, 1.0]
    assert rank_normalize(np.array([4.0])).tolist() == [0.0]


def test_a_difficulty_that_is_not_finite_is_named():
    with pytest.raises(InputError, match=r"row 1 of the pool is nan.*learning_rate"):
        rank_normalize(np.array([1.0, np.nan]))


def test_centering_makes_distances_count_where_all_embeddings_share_one_direction():
    _, _, embeddings = make_pool(200, 1)
    crowded = embeddings + 20 * np.eye(1, embeddings.shape[1], dtype=np.float32)
    crowded /= np.linalg.norm(crowded, axis=1, keepdims=True)
    assert (1 - crowded @ crowded[0]).max() / 2 < 0.01
    centered = center_embeddings(crowded)
    assert (1 - centered @ centered[0]).max() / 2 > 0.5
    assert np.linalg.norm(center_embeddings(crowded), axis=1) == pytest.approx(1, abs=1e-5)


def test_new_picks_keep_their_distance_from_earlier_purchases():
    """With alpha 0 this is k-center, continued where earlier purchases ended."""
    ids, difficulty, embeddings = make_pool(80, 5)
    complete = to_picks(rank("bridge_greedy", ids, difficulty, embeddings, 8, alpha=0), ids)
    asked = [p.id for p in complete[:3]]
    later = rank("bridge_greedy", ids, difficulty, embeddings, 5, alpha=0, asked=asked)
    assert [p.id for p in to_picks(later, ids)[:5]] == [p.id for p in complete[3:8]]
