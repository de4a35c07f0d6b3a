"""Random pools and their rankings, for the tests of selection."""

import numpy as np

from bridgekd.records import Pick
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool

DOMAINS = ("sums", "tales", "maps")


def make_pool(n, seed, d=6):
    """Return ids, difficulty and embeddings of length 1."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, d)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return [f"q{i:04d}" for i in range(n)], rng.gamma(2.0, size=n).round(1), embeddings


def make_twins(n, seed, d=6):
    """Return a pool in which a third of the rows have an equal, difficulty included."""
    ids, difficulty, embeddings = make_pool(n, seed, d)
    like = np.arange(n)
    like[: n // 3] = np.random.default_rng(seed).permutation(n)[: n // 3]
    return ids, difficulty[like], embeddings[like]


def make_equal(n, seed, d=6):
    """Return a pool of n times the same question."""
    ids, _, embeddings = make_pool(n, seed, d)
    return ids, np.ones(n), np.repeat(embeddings[:1], n, axis=0)


def make_groups(sizes, seed=0, spread=1e-4):
    """Return a pool of tight groups in random directions; rows are in the order of groups."""
    ids, difficulty, noise = make_pool(sum(sizes), seed)
    centers = np.eye(6, dtype=np.float32)[: len(sizes)]
    embeddings = np.repeat(centers, sizes, axis=0) + spread * noise
    return ids, difficulty, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def get_domains(ids):
    return [DOMAINS[int(id[1:]) % 7 % 3] for id in ids]


def rank(
    strategy,
    ids,
    difficulty,
    embeddings,
    n=5,
    *,
    seed=0,
    domains=(),
    asked=(),
    quotas=None,
    mix=None,
    costs=None,
    **options,
):
    """Return the ranking by a strategy, or by its name."""
    variant = STRATEGIES.get(strategy) if isinstance(strategy, str) else strategy
    return rank_pool(
        variant,
        variant.options(**options),
        ids,
        difficulty,
        embeddings,
        domains=domains,
        already_queried=asked,
        quotas=quotas,
        mix=mix,
        costs=costs,
        n_selected=n,
        seed=seed,
    )


def to_picks(ranking, ids):
    columns = {name: column.tolist() for name, column in ranking.to_columns(ids).items()}
    return [
        Pick(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]
