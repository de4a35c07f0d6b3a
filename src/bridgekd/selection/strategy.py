"""The selection strategy as a variant, and the function that ranks a pool by it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.quotas import QuotaGroups, allocate_quotas, group_pool
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_normalize, rank_rest

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[OptionsT]):
    """A method for selecting questions; `rank(pool, n_selected, options, seed)` ranks the pool.

    Contract: the first `n_selected` positions are the selection in the order of picking. The rest
    follows by score. Ties go by id, which is the order of `pool`. Only `seed` makes a ranking
    random. The arrays of `pool` are not changed.

    paper: "" for our own strategies. is_nested: a larger budget only adds picks at the end.
    uses_costs: it picks by a gain, which it divides by the costs of a pool that has them.
    is_random_draw: the picks are a random sample that prefers no kind of question; equal questions
    are not in the order of ids.
    """

    name: str
    title: str
    summary: str
    paper: str = ""
    options: type[OptionsT]
    rank: Callable[[SelectionPool, int, OptionsT, int], Ranking]
    needs_difficulty: bool = False
    needs_embeddings: bool = False
    uses_seed: bool = False
    uses_costs: bool = False
    is_nested: bool = False
    is_random_draw: bool = False


class WithAlpha(BaseModel):
    """Options of a strategy whose score is alpha * difficulty + (1 - alpha) * diversity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(0.5, ge=0, le=1)


def rank_pool(
    strategy: Strategy[Any],
    options: BaseModel,
    ids: Sequence[str],
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    *,
    domains: Sequence[str] = (),
    already_queried: Collection[str] = (),
    quotas: QuotaGroups | None = None,
    mix: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    costs: np.ndarray | None = None,
    n_selected: int,
    seed: int,
) -> Ranking:
    """Return the ranking of a pool of n questions by `strategy`, in row numbers of these arrays.

    difficulty: [n], any unit, higher is harder. embeddings: [n, d] float32 with rows of length 1,
    or [n, 0]; a np.memmap is copied only if ids are not in order. domains: [n], or empty.
    Ids in `already_queried` are not ranked; greedy strategies keep their distance from them.
    quotas: each domain or cluster gets its share of the picks, and the strategy ranks the questions
    of each by themselves. mix: gets the rows that can be picked, [m], and their groups, [m]; it
    returns the share of each group, [g]. By default a group has its share of these rows. costs: [n]
    above 0, by which a strategy that `uses_costs` divides gains.
    """
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    is_queried = np.array([ids[i] in already_queried for i in by_id], dtype=bool)
    row_of = by_id[~is_queried]
    is_in_order = np.array_equal(row_of, np.arange(len(ids)))
    domain_names = np.array(domains if len(domains) else [""] * len(ids))
    pool = SelectionPool(
        difficulty=rank_normalize(difficulty)[row_of],
        embeddings=np.asarray(embeddings if is_in_order else embeddings[row_of], dtype=np.float32),
        domains=np.unique(domain_names, return_inverse=True)[1][row_of],
        already_queried=np.asarray(embeddings[by_id[is_queried]], dtype=np.float32),
        costs=costs[row_of] if costs is not None and strategy.uses_costs else None,
    )
    n_selected = min(n_selected, len(pool))
    if quotas is None:
        ranking = strategy.rank(pool, n_selected, options, seed)
    else:
        groups = group_pool(pool, quotas, n_selected, seed)
        shares = None if mix is None or not len(pool) else mix(row_of, groups)
        ranking = rank_in_groups(strategy, options, pool, groups, n_selected, seed, shares)
    row_or_none = np.append(row_of, -1)  # index -1 is "no nearest pick"
    return replace(ranking, rows=row_of[ranking.rows], nearest=row_or_none[ranking.nearest])


def rank_in_groups(
    strategy: Strategy[Any],
    options: BaseModel,
    pool: SelectionPool,
    groups: np.ndarray,
    n_selected: int,
    seed: int,
    shares: np.ndarray | None = None,
) -> Ranking:
    """Return the ranking in which each of `groups` [n] has a quota of the picks by `shares` [g].

    The strategy ranks each group as a pool of its own, also by difficulty relative to the others.
    Every beginning of the selection has about these shares. By default they are those of the pool,
    as are those of the rest.
    """
    quotas = allocate_quotas(np.bincount(groups), n_selected, shares)
    position, score = np.empty(len(pool)), np.empty(len(pool))
    n_filled, is_picked = 0, np.zeros(len(pool), dtype=bool)
    for group in np.unique(groups):
        rows, quota = np.flatnonzero(groups == group), int(quotas[group])
        ranking = strategy.rank(_take_rows(pool, rows), quota, options, seed)
        ranked = rows[ranking.rows]
        score[ranked], is_picked[ranked[:quota]] = ranking.score, True
        position[ranked[:quota]] = (np.arange(quota) + 0.5) / max(1, quota)
        n_rest = len(rows) - quota
        position[ranked[quota:]] = (np.arange(n_rest) + 0.5) / max(1, n_rest)
        n_filled += ranking.n_filled
    picks = np.flatnonzero(is_picked)
    picks = picks[np.argsort(position[picks], kind="stable")]
    ranking = rank_rest(pool, picks, score[picks], -position, n_filled=n_filled)
    return replace(ranking, score=score[ranking.rows])


def _take_rows(pool: SelectionPool, rows: np.ndarray) -> SelectionPool:
    return replace(
        pool,
        difficulty=pool.difficulty[rows],
        embeddings=pool.embeddings[rows],
        domains=pool.domains[rows],
        costs=None if pool.costs is None else pool.costs[rows],
    )
