"""The selection strategy as a variant, and the function that ranks a pool by it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bridgekd.selection.ranking import Ranking, SelectionPool, rank_normalize

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[OptionsT]):
    """A method for selecting questions; `rank(pool, n_selected, options, seed)` ranks the pool.

    Contract: the first `n_selected` positions are the selection in the order of picking. The rest
    follows by score. Ties go by id, which is the order of `pool`. Only `seed` makes a ranking
    random. The arrays of `pool` are not changed.

    paper: "" for our own strategies. is_nested: a larger budget only adds picks at the end.
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
    is_nested: bool = False


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
    n_selected: int,
    seed: int,
) -> Ranking:
    """Return the ranking of a pool of n questions by `strategy`, in row numbers of these arrays.

    difficulty: [n], any unit, higher is harder. embeddings: [n, d] float32 with rows of length 1,
    or [n, 0]; a np.memmap is copied only if ids are not in order. domains: [n], or empty.
    Ids in `already_queried` are not ranked; greedy strategies keep their distance from them.
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
    )
    ranking = strategy.rank(pool, min(n_selected, len(pool)), options, seed)
    row_or_none = np.append(row_of, -1)  # index -1 is "no nearest pick"
    return replace(ranking, rows=row_of[ranking.rows], nearest=row_or_none[ranking.nearest])
