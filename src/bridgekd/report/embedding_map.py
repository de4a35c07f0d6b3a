"""The maps of the pool: one for each selection that used embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example, Pick
from bridgekd.report.purchases import describe_selection
from bridgekd.report.report_data import EmbeddingMap, MapPoint
from bridgekd.rng import sample_indices
from bridgekd.stages.select_questions import (
    SelectSettings,
    find_embeddings,
    load_embeddings,
    select_questions,
)

_N_FITTED, _N_OTHERS, _N_SELECTED = 5000, 1500, 500


def build_embedding_maps(ancestors: Mapping[str, Artifact]) -> tuple[EmbeddingMap, ...]:
    """Return a map for each selection among `ancestors` whose pool has embeddings."""
    maps = []
    for artifact in ancestors.values():
        if artifact.stage != select_questions.name:
            continue
        sources = (*artifact.get_inputs("embeddings"), *artifact.get_inputs("scores"))
        if (file := find_embeddings(*sources)) is not None:
            maps.append(
                build_embedding_map(
                    read_rows(artifact.get_input("pool").path / "pool.parquet", Example),
                    load_embeddings(file),
                    read_rows(artifact.path / "ranking.parquet", Pick),
                    title=describe_selection(artifact),
                    seed=artifact.read_settings(SelectSettings).seed,
                )
            )
    return tuple(maps)


def build_embedding_map(
    pool: Sequence[Example],
    embeddings: np.ndarray,
    ranking: Sequence[Pick],
    *,
    title: str,
    seed: int,
) -> EmbeddingMap:
    """Return the map of one selection.

    embeddings: [n, d], in the order of `pool`; a memory map is possible.
    """
    positions = {e.id: i for i, e in enumerate(pool)}
    selected = sorted((p for p in ranking if p.is_selected), key=lambda p: p.rank)
    others = sorted((p for p in ranking if not p.is_selected), key=lambda p: positions[p.id])
    sample = [others[i] for i in sample_indices(seed, "map dots", n=_N_OTHERS, of=len(others))]
    shown = sample + selected[:_N_SELECTED]
    fitted = sample_indices(seed, "map axes", n=_N_FITTED, of=len(pool))
    plane, variance = project(embeddings[fitted], embeddings[[positions[p.id] for p in shown]])
    points = tuple(
        _build_point(pool[positions[p.id]], p, float(x), float(y))
        for p, (x, y) in zip(shown, plane, strict=True)
    )
    return EmbeddingMap(
        title=title,
        points=points[: len(sample)],
        selected=points[len(sample) :],
        explained_variance=variance,
        n_fitted=len(fitted),
        n_pool=len(pool),
        n_selected=len(selected),
    )


def project(sample: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Return `rows` [k, d] on the first two principal components of `sample` [n, d].

    The result is float64 [k, 2] and the fraction of the sample's variance that each component
    explains. With one column, or without variance, a component is 0. The sign is scikit-learn's.
    """
    from sklearn.decomposition import PCA  # slow to import

    plane = np.zeros((len(rows), 2))
    sample = sample.astype(np.float64)
    if not sample.var(axis=0).any():
        return plane, (0.0, 0.0)
    n_components = min(2, *sample.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(sample)
    plane[:, :n_components] = pca.transform(rows)
    first, second = (*map(float, pca.explained_variance_ratio_), 0.0)[:2]
    return plane, (first, second)


def _build_point(example: Example, pick: Pick, x: float, y: float) -> MapPoint:
    rank = pick.rank if pick.is_selected else None
    return MapPoint(x, y, pick.difficulty, example.domain, example.question, rank)
