"""Every strategy's rule against a plain implementation of it."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bridgekd.errors import InputError
from bridgekd.io.row_files import read_rows, write_columns, write_rows
from bridgekd.records import Pick
from bridgekd.selection.clusters import run_k_means
from bridgekd.selection.diversity import center_embeddings, find_nearest_picks
from bridgekd.selection.features import whiten
from bridgekd.selection.greedy import select_greedy
from bridgekd.selection.quotas import allocate_quotas
from bridgekd.selection.ranking import SelectionPool, rank_normalize
from bridgekd.selection.strategies.deita import DEITA_MIN_DISTANCE
from bridgekd.selection.strategies.medoids import find_medoids
from bridgekd.selection.strategies.spread import draw_pivotal
from bridgekd.selection.strategies.swapped import build_kernel
from bridgekd.selection.strategies.typical import compute_typicality, rank_members
from bridgekd.selection.strategies.weighted_coverage import compute_width
from selection_pools import (
    DOMAINS,
    get_domains,
    make_equal,
    make_groups,
    make_pool,
    make_twins,
    rank,
    to_picks,
)


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


def count_draws(points, n_selected, n_draws=2000, cell_size=100):
    rng = np.random.default_rng(7)
    return np.sum(
        [draw_pivotal(points, n_selected, rng, cell_size=cell_size) for _ in range(n_draws)], axis=0
    )


@pytest.mark.parametrize("n_selected", [1, 4, 9])
def test_spread_draws_every_question_with_the_chance_of_random(n_selected):
    """Two tight groups, twins and an outlier; 2,000 draws within 4.5 standard deviations."""
    rng = np.random.default_rng(1)
    points = np.repeat([[0.0, 0.0], [5.0, 0.0], [40.0, 9.0]], [8, 5, 1], axis=0)
    points[:12] += rng.normal(size=(12, 2))
    counts = count_draws(points.astype(np.float32), n_selected)
    chance = n_selected / 14
    assert counts.sum() == 2000 * n_selected
    limit = 4.5 * np.sqrt(2000 * chance * (1 - chance))
    assert np.abs(counts - 2000 * chance).max() < limit


def test_spread_keeps_the_chances_when_cells_meet():
    points = np.random.default_rng(2).normal(size=(17, 2)).astype(np.float32)
    counts = count_draws(points, 5, n_draws=500, cell_size=3)
    assert counts.sum() == 2500
    assert np.abs(counts - 500 * 5 / 17).max() < 4.5 * np.sqrt(500 * 5 / 17 * 12 / 17)


def test_spread_draws_vary_less_than_random_in_the_shares_of_groups():
    ids, difficulty, embeddings = make_groups([60, 30, 30])
    taken = {
        name: [
            np.count_nonzero(rank(name, ids, difficulty, embeddings, 20, seed=s).rows[:20] < 60)
            for s in range(30)
        ]
        for name in ("random", "spread")
    }
    assert np.var(taken["spread"]) < np.var(taken["random"]) / 2
    assert abs(np.mean(taken["spread"]) - 10) < 0.5


def compute_mmd(kernel, picks):
    """Squared MMD between some rows and all rows, as it is defined."""
    every = kernel.compute(np.arange(len(kernel))).astype(float)
    return every[np.ix_(picks, picks)].mean() - 2 * every[picks].mean() + every.mean()


@settings(max_examples=60, deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 17, 40]),
    seed=st.integers(0, 10**6),
    fraction=st.floats(0.05, 1),
    make=st.sampled_from([make_pool, make_twins, make_equal]),
)
def test_swapped_picks_are_never_farther_from_the_pool_than_those_of_random(
    n, seed, fraction, make
):
    ids, difficulty, embeddings = make(n, seed)
    n_selected, domains = max(1, int(fraction * n)), np.arange(n) % 3
    pool = SelectionPool(
        rank_normalize(difficulty), embeddings, domains, np.empty((0, 6), dtype=np.float32)
    )
    names = [str(d) for d in domains]
    random, swapped = (
        rank(s, ids, difficulty, embeddings, n_selected, seed=seed, domains=names).rows[:n_selected]
        for s in ("random", "swapped")
    )
    kernel = build_kernel(pool)
    assert compute_mmd(kernel, swapped) <= compute_mmd(kernel, random) + 1e-7
    kept = swapped == random
    assert not np.isin(swapped[~kept], random).all() or kept.all()


def test_swaps_bring_picks_clearly_nearer_to_the_pool():
    ids, difficulty, embeddings = make_pool(300, 3)
    pool = SelectionPool(
        rank_normalize(difficulty), embeddings, np.zeros(300, dtype=int), embeddings[:0]
    )
    kernel = build_kernel(pool)
    random, swapped = (
        compute_mmd(kernel, rank(s, ids, difficulty, embeddings, 20).rows[:20])
        for s in ("random", "swapped")
    )
    assert swapped < random / 3


def test_typical_takes_the_most_typical_of_each_group():
    ids, difficulty, embeddings, labels = groups_of_points(300, 3, 0)
    ranking = rank("typical", ids, difficulty, embeddings.astype(np.float32), 3)
    assert sorted(labels[ranking.rows[:3]]) == [0, 1, 2]
    assert ranking.n_filled == 0


def test_typicality_is_high_in_the_middle_and_zero_alone():
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [9.0], [50.0]])
    typicality = compute_typicality(rows, np.array([0, 0, 0, 0, 0, 1]))
    assert typicality[5] == 0
    assert typicality[:5].argmin() == 4
    expected = [1 / (np.sort(np.abs(rows[:5, 0] - x))[1:3].mean() + 1e-5) for x in rows[:5, 0]]
    assert typicality[:5] == pytest.approx(expected)


def test_typical_gives_small_clusters_and_queried_clusters_the_last_turn():
    clusters = np.array([0] * 8 + [1] * 7 + [2] * 2)
    typicality = np.arange(17.0)
    order, n_first = rank_members(typicality, clusters, np.zeros(17, dtype=int))
    assert order[:4].tolist() == [7, 14, 6, 13] and n_first == 2
    assert order[-2:].tolist() == [16, 15]
    n_queried = (np.arange(17) == 3).astype(int)
    assert rank_members(typicality, clusters, n_queried)[0][:2].tolist() == [14, 7]


def test_typical_gives_every_domain_its_share():
    ids, difficulty, embeddings = make_pool(140, 8)
    domains = np.array(get_domains(ids))
    rows = rank("typical", ids, difficulty, embeddings, 21, domains=domains.tolist()).rows[:21]
    assert [np.count_nonzero(domains[rows] == name) for name in DOMAINS] == [9, 6, 6]


def compute_coverage(rows, picks, weight, sigma):
    squares = ((rows[:, None] - rows[None, picks]) ** 2).sum(axis=2)
    return float(weight @ np.exp(-squares / sigma**2).max(axis=1)) if picks else 0.0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 25), seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.5, 1.0]))
def test_herding_is_the_exact_greedy_choice(n, seed, alpha):
    ids, difficulty, embeddings = make_pool(n, seed)
    pool = SelectionPool(
        rank_normalize(difficulty), embeddings, np.zeros(n, dtype=int), embeddings[:0]
    )
    rows = whiten(pool).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sigma, weight = compute_width(rows, rows[:0]), (1 - alpha + alpha * pool.difficulty) / n
    ranking, picks = rank("herding", ids, difficulty, embeddings, max(1, n // 2), alpha=alpha), []
    for row, gain in zip(ranking.rows[: n // 2], ranking.score, strict=False):
        before = compute_coverage(rows, picks, weight, sigma)
        gains = [compute_coverage(rows, [*picks, i], weight, sigma) - before for i in range(n)]
        picks.append(int(row))
        assert gain == pytest.approx(gains[row], abs=1e-6)
        assert gains[row] == pytest.approx(max(gains), abs=1e-6)


def test_herding_gains_nothing_from_a_hard_outlier():
    ids, difficulty, embeddings = make_groups([60, 60])
    outlier = np.array([[0, 0, 0, 0, 0, 1]], dtype=np.float32)
    pool = [*ids, "q9999"], np.append(difficulty, 99.0), np.vstack([embeddings, outlier])
    assert 120 not in rank("herding", *pool, 2).rows[:2]
    assert 120 in rank("hardest", *pool, 2).rows[:2]


def test_herding_covers_what_earlier_purchases_do_not():
    ids, difficulty, embeddings = make_groups([60, 60])
    asked = set(ids[:20])
    ranking = rank("herding", ids, difficulty, embeddings, 1, asked=asked)
    assert ranking.rows[0] >= 60
