"""Gathers the maps of the pool: for every choice that was made by scores, where its picks lie."""

from collections.abc import Mapping, Sequence

import numpy as np

from bridgekd import settings as of
from bridgekd.core.draws import drawn
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact
from bridgekd.records import Example, Pick
from bridgekd.report.evidence import MapPoint, PickReason, PoolMap
from bridgekd.report.pool_map import projected
from bridgekd.stages.pool import SelectStats, find_embeddings

_N_FITTED, _N_DOTS, _N_PICKS, _N_REASONS = 5000, 1500, 500, 15


def pool_maps(behind: Mapping[str, Artifact]) -> tuple[PoolMap, ...]:
    """A map for each choice among `behind` that was made from scores."""
    maps = []
    for artifact in behind.values():
        if artifact.stage != "select":
            continue
        settings = artifact.read_settings(of.Select)
        compared = [*artifact.get_inputs("embeddings"), *artifact.get_inputs("scores")]
        vectors = find_embeddings(*compared)
        if vectors is not None:
            maps.append(
                pool_map(
                    read_rows(artifact.get_input("pool").path / "pool.parquet", Example),
                    np.load(vectors, mmap_mode="r"),
                    read_rows(artifact.path / "ranking.parquet", Pick),
                    title=f"Chosen by: {settings.strategy.name}",
                    rule=artifact.read_stats(SelectStats).score_rule or "",
                    seed=settings.seed,
                )
            )
    return tuple(maps)


def pool_map(
    pool: Sequence[Example],
    embeddings: np.ndarray,
    ranking: Sequence[Pick],
    *,
    title: str,
    rule: str,
    seed: int,
) -> PoolMap:
    """The map of one choice; `embeddings` [n, d] in the order of `pool`, on disk if need be."""
    place = {e.id: i for i, e in enumerate(pool)}
    ranked = sorted(ranking, key=lambda p: p.rank)
    chosen, others = [p for p in ranked if p.chosen], [p for p in ranked if not p.chosen]
    others.sort(key=lambda p: place[p.id])
    dots = [others[i] for i in drawn(seed, "map dots", n=_N_DOTS, of=len(others))]
    shown = dots + chosen[:_N_PICKS]
    fitted = drawn(seed, "map axes", n=_N_FITTED, of=len(pool))
    told = chosen[:_N_REASONS] if any(p.score for p in chosen) else []
    plane, shares = projected(embeddings[fitted], embeddings[[place[p.id] for p in shown]])
    points = tuple(
        _point(pool[place[p.id]], p, (float(x), float(y)))
        for p, (x, y) in zip(shown, plane, strict=True)
    )
    return PoolMap(
        title=title,
        rule=rule,
        points=points[: len(dots)],
        picks=points[len(dots) :],
        shares=shares,
        n_fitted=len(fitted),
        n_pool=len(pool),
        n_chosen=len(chosen),
        reasons=tuple(_reason(p, pool, place) for p in told),
    )


def _point(example: Example, pick: Pick, at: tuple[float, float]) -> MapPoint:
    return MapPoint(
        x=at[0],
        y=at[1],
        difficulty=pick.difficulty,
        domain=example.domain,
        question=example.question,
        rank=pick.rank if pick.chosen else None,
    )


def _reason(pick: Pick, pool: Sequence[Example], place: Mapping[str, int]) -> PickReason:
    return PickReason(
        rank=pick.rank,
        score=pick.score,
        difficulty=pick.difficulty,
        distance=pick.distance,
        nearest="" if pick.nearest is None else pool[place[pick.nearest]].question,
        question=pool[place[pick.id]].question,
    )
