"""The contract of every strategy, and of one in a file of the user."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from bridgekd.errors import InputError
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.variants import VariantRef
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

EASIEST = """
import numpy as np

from bridgekd.selection.ranking import rank_rest, sort_by_score
from bridgekd.selection.strategy import Strategy, WithAlpha


def easiest(pool, n_selected, options, seed):
    score = -options.alpha * pool.difficulty
    picks = sort_by_score(score, np.arange(len(pool)))[:n_selected]
    return rank_rest(pool, picks, score[picks], score)


STRATEGY = Strategy(
    name="easiest",
    title="Easiest first",
    summary="Takes the easiest questions.",
    options=WithAlpha,
    rank=easiest,
    needs_difficulty=True,
    is_nested=True,
)
"""


@pytest.fixture(scope="module", params=[*STRATEGIES.list_names(), "a file"])
def ref(request, tmp_path_factory):
    if request.param != "a file":
        return VariantRef(name=request.param)
    path = tmp_path_factory.mktemp("strategy") / "easiest.py"
    path.write_text(EASIEST)
    return VariantRef(file=str(path))


@pytest.fixture(scope="module")
def strategy(ref):
    return STRATEGIES.load(STRATEGIES.resolve(ref))


def is_same(first, second):
    return all(
        np.array_equal(getattr(first, f.name), getattr(second, f.name), equal_nan=True)
        for f in dataclasses.fields(first)
    )


def test_it_has_a_title_and_one_sentence(strategy):
    assert strategy.title and strategy.summary.endswith(".")
    assert "\n" not in strategy.summary


def test_it_refuses_an_option_that_it_does_not_have(ref, strategy):
    known = list(strategy.options.model_fields)
    hint = f"Did you mean '{known[0]}'" if known else "Known: none"
    key = f"{known[0]}x" if known else "alpha"
    with pytest.raises(InputError, match=f"unknown option '{key}'. {hint}"):
        STRATEGIES.resolve(ref.model_copy(update={"options": {key: 0.5}}))


@settings(max_examples=25, deadline=None)
@given(
    n=st.sampled_from([1, 2, 3, 17, 40]),
    seed=st.integers(0, 9),
    fraction=st.sampled_from([0, 0.1, 0.5, 1]),
    make=st.sampled_from([make_pool, make_twins, make_equal]),
)
def test_a_ranking_is_a_permutation_of_the_pool_without_nan(strategy, n, seed, fraction, make):
    pool, n_selected = make(n, seed), int(fraction * n)
    ranking = rank(strategy, *pool, n_selected, seed=seed, domains=get_domains(pool[0]))
    assert sorted(ranking.rows) == list(range(n))
    assert ranking.n_selected == n_selected
    assert np.isfinite(ranking.score).all() and np.isfinite(ranking.difficulty).all()
    assert not np.isnan(ranking.distance[:n_selected]).any()
    assert np.isnan(ranking.distance[n_selected:]).all()
    assert (ranking.nearest[1:n_selected] >= 0).all() and (ranking.nearest[:1] == -1).all()
    assert n_selected == 0 or (ranking.cluster >= 0).all()


@pytest.mark.parametrize("make", [make_pool, make_twins])
def test_neither_the_order_of_the_pool_nor_a_second_call_changes_a_ranking(strategy, make):
    ids, difficulty, embeddings = make(60, 3)
    before = difficulty.copy(), embeddings.copy()
    first = rank(strategy, ids, difficulty, embeddings, 12, domains=get_domains(ids))
    again = rank(strategy, ids, difficulty, embeddings, 12, domains=get_domains(ids))
    order = np.random.default_rng(1).permutation(60)
    names = [ids[i] for i in order]
    shuffled = rank(
        strategy, names, difficulty[order], embeddings[order], 12, domains=get_domains(names)
    )
    assert is_same(again, first)
    assert to_picks(shuffled, names) == to_picks(first, ids)
    assert (difficulty == before[0]).all() and (embeddings == before[1]).all()


def test_equal_questions_go_by_id_unless_the_order_is_random(strategy):
    names = ["c", "a", "b"]
    _, difficulty, embeddings = make_equal(3, 0)
    picks = to_picks(rank(strategy, names, difficulty, embeddings, 2), names)
    assert strategy.is_random_draw or [p.id for p in picks] == ["a", "b", "c"]


def test_only_the_seed_makes_a_ranking_random(strategy):
    # above this size some strategies draw samples
    options = {"max_exact": 10} if "max_exact" in strategy.options.model_fields else {}
    first, *others = (rank(strategy, *make_pool(60, 3), 12, seed=s, **options) for s in range(3))
    assert any(not is_same(other, first) for other in others) == strategy.uses_seed


def test_it_depends_on_difficulty_and_embeddings_as_declared(strategy):
    ids, difficulty, embeddings = make_pool(200, 3, d=3)
    first, other_difficulty, other_embeddings = (
        rank(strategy, ids, d, e, 40).rows.tolist()
        for d, e in (
            (difficulty, embeddings),
            (make_pool(200, 4)[1], embeddings),
            (difficulty, make_pool(200, 4, d=3)[2]),
        )
    )
    assert (other_difficulty != first) == strategy.needs_difficulty
    assert (other_embeddings != first) == strategy.needs_embeddings


def test_a_strategy_that_needs_no_embeddings_works_without(strategy):
    ids, difficulty, embeddings = make_pool(60, 3)
    if not strategy.needs_embeddings:
        ranking = rank(strategy, ids, difficulty, np.empty((60, 0), dtype=np.float32))
        assert (ranking.rows == rank(strategy, ids, difficulty, embeddings).rows).all()
        pick = to_picks(ranking, ids)[1]
        assert (pick.distance, pick.nearest, pick.cluster) == (None, None, None)


def test_alpha_changes_the_ranking(strategy):
    if "alpha" in strategy.options.model_fields:
        low, high = (rank(strategy, *make_pool(60, 3), 12, alpha=a) for a in (0.1, 0.9))
        assert not is_same(low, high)


def test_a_nested_strategy_begins_with_the_same_picks_for_every_budget(strategy):
    few, many = (rank(strategy, *make_pool(60, 3), n).rows for n in (6, 25))
    assert not strategy.is_nested or list(few[:6]) == list(many[:6])


def test_embeddings_may_stay_on_disk(strategy, tmp_path):
    ids, difficulty, embeddings = make_pool(60, 4)
    np.save(tmp_path / "e.npy", embeddings)
    on_disk = np.load(tmp_path / "e.npy", mmap_mode="r")
    ranking = rank(strategy, ids, difficulty, on_disk)
    assert is_same(ranking, rank(strategy, ids, difficulty, embeddings))


def test_every_pick_names_its_nearest_earlier_pick(strategy):
    ids, difficulty, embeddings = make_pool(30, 5)
    ranking = rank(strategy, ids, difficulty, embeddings, 6)
    distances = (1 - embeddings.astype(float) @ embeddings[ranking.rows[:6]].T) / 2
    for position in range(1, 6):
        earlier = distances[ranking.rows[position], :position]
        assert ranking.nearest[position] == ranking.rows[earlier.argmin()]
        assert ranking.distance[position] == pytest.approx(earlier.min(), abs=1e-6)
    nearest = distances[ranking.rows].min(axis=1)
    assert ranking.distance_to_selection == pytest.approx(nearest, abs=1e-6)


def test_questions_of_earlier_purchases_are_not_ranked_again(strategy):
    ids, difficulty, embeddings = make_pool(60, 3)
    asked = {"q0003", "q0017", "q0059"}
    ranking = rank(strategy, ids, difficulty, embeddings, 9, asked=asked)
    assert sorted(p.id for p in to_picks(ranking, ids)) == sorted(set(ids) - asked)


@pytest.mark.parametrize("n_selected", [0, 21, 140])
def test_with_quotas_every_domain_gets_its_share_of_each_beginning(strategy, n_selected):
    ids, difficulty, embeddings = make_pool(140, 8)
    domains = np.array(get_domains(ids))  # shares of 3/7, 2/7 and 2/7
    ranking = rank(
        strategy, ids, difficulty, embeddings, n_selected, domains=domains.tolist(), quotas="domain"
    )
    assert sorted(ranking.rows) == list(range(140)) and np.isfinite(ranking.score).all()
    for n in range(n_selected + 1):
        taken = np.array([np.count_nonzero(domains[ranking.rows[:n]] == name) for name in DOMAINS])
        assert (np.abs(taken - np.array([3, 2, 2]) * n / 7) <= 1.01).all()


def test_a_mixture_sets_the_shares_of_the_quotas(strategy):
    ids, difficulty, embeddings = make_pool(140, 8)
    domains = np.array(get_domains(ids))  # sizes of 40 (maps), 60 (sums) and 40 (tales)
    ranking = rank(
        strategy, ids, difficulty, embeddings, 20, domains=domains.tolist(), quotas="domain",
        mix=lambda rows, groups: np.array([0.1, 0.2, 0.7]),
    )  # fmt: skip
    names, counts = np.unique(domains[ranking.rows[:20]], return_counts=True)
    assert (names.tolist(), counts.tolist()) == (["maps", "sums", "tales"], [2, 4, 14])


def test_costs_matter_as_declared_and_only_relative_to_each_other(strategy):
    ids, difficulty, embeddings = make_pool(60, 3)
    first = rank(strategy, ids, difficulty, embeddings, 12)
    doubled = rank(strategy, ids, difficulty, embeddings, 12, costs=np.full(60, 2.0))
    assert doubled.rows.tolist() == first.rows.tolist()
    costs = np.ones(60)
    costs[first.rows[30]] = 1e-9
    cheap = rank(strategy, ids, difficulty, embeddings, 12, costs=costs)
    assert (cheap.rows[0] == first.rows[30]) == strategy.uses_costs
    assert is_same(cheap, first) != strategy.uses_costs


def test_quotas_by_cluster_limit_the_picks_of_each_cluster(strategy):
    ids, difficulty, embeddings = make_groups([180, 20])
    ranking = rank(strategy, ids, difficulty, embeddings, 20, quotas="cluster")
    assert np.count_nonzero(ranking.rows[:20] >= 180) == 2


def test_quotas_do_not_depend_on_the_order_of_the_pool(strategy):
    ids, difficulty, embeddings = make_pool(60, 3)
    order = np.random.default_rng(1).permutation(60)
    names = [ids[i] for i in order]
    first, shuffled = (
        rank(strategy, *pool, 12, domains=get_domains(pool[0]), quotas="domain")
        for pool in (
            (ids, difficulty, embeddings),
            (names, difficulty[order], embeddings[order]),
        )
    )
    assert to_picks(shuffled, names) == to_picks(first, ids)
