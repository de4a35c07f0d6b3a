"""What a strategy is, and the one call that ranks a pool by it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.ranking import Ranking, SelectionPool, rank_normalize

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[OptionsT]):
    """A way to choose questions; `rank(pool, n_selected, options, seed)` ranks the whole pool.

    Contract: the first `n_selected` positions are the selection in the order of picking; the rest
    follows by score; ties go by id, which is the order of `pool`. Only `seed` makes a ranking
    random. The arrays of `pool` are not changed. `paper` is "" for our own strategies.

    is_nested: the first picks are the same however many are selected. `describe_score` returns
    the rule behind the scores for the report, or "".
    """

    name: str
    title: str
    summary: str
    paper: str
    options: type[OptionsT]
    rank: Callable[[SelectionPool, int, OptionsT, int], Ranking]
    needs_difficulty: bool
    needs_embeddings: bool
    uses_seed: bool
    is_nested: bool
    describe_score: Callable[[OptionsT], str] = lambda options: ""


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
    already_asked: Collection[str] = (),
    n_selected: int,
    seed: int,
) -> Ranking:
    """Return the ranking of a pool of n questions by `strategy`, in row numbers of these arrays.

    difficulty: [n], any unit, higher is harder. embeddings: [n, d] float32 with rows of length 1,
    or [n, 0]; a np.memmap is copied only if ids are not in order. domains: [n], or empty.
    Ids in `already_asked` are not ranked; greedy strategies keep their distance from them.
    """
    by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    is_asked = np.array([ids[i] in already_asked for i in by_id], dtype=bool)
    row_of = by_id[~is_asked]
    in_order = len(row_of) == len(ids) and bool((row_of == np.arange(len(ids))).all())
    domain_names = np.array(domains if len(domains) else [""] * len(ids))
    pool = SelectionPool(
        difficulty=rank_normalize(difficulty)[row_of],
        embeddings=np.asarray(embeddings if in_order else embeddings[row_of], dtype=np.float32),
        domains=np.unique(domain_names, return_inverse=True)[1][row_of],
        already_asked=np.asarray(embeddings[by_id[is_asked]], dtype=np.float32),
    )
    ranking = strategy.rank(pool, min(n_selected, len(pool)), options, seed)
    has_nearest = ranking.nearest >= 0
    nearest = np.where(has_nearest, row_of[np.where(has_nearest, ranking.nearest, 0)], -1)
    return replace(ranking, rows=row_of[ranking.rows], nearest=nearest)
