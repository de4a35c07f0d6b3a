"""Which questions to pay for: every strategy is a function from arrays to one ranking of the whole
pool.

Contract of a strategy: the first `n_chosen` places are its choice, in the order of choosing; the
rest follows by static score; equal scores go by id; neither the order of the pool nor anything but
`seed` changes the ranking; inputs are left as they are.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np

from bridgekd.core.clusters import k_means, medoids, quotas
from bridgekd.core.difficulty import rank_normalise
from bridgekd.core.diversity import exact_distances
from bridgekd.core.draws import stream
from bridgekd.core.facility import facility
from bridgekd.core.greedy import greedy
from bridgekd.core.ranking import Choice, Pool, Ranking, followed, hardest_first, ranking

Strategy = Callable[[Pool, int, float, int], Choice]

DEITA_DISTANCE = 0.05  # a cosine of 0.9, the threshold of arXiv 2312.15685 (reading)
N_CLUSTERS = 100  # of "clusters" (ours)
_BLOCK = 4096


def rank(
    strategy: str,
    ids: Sequence[str],
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    *,
    domains: Sequence[str] = (),
    asked: Collection[str] = (),
    n_chosen: int,
    alpha: float,
    seed: int,
) -> Ranking:
    """The ranking of the pool by `strategy`, a key of STRATEGIES.

    `difficulty` [n] in any unit, higher = harder; `embeddings` [n, d] float32 with rows of length
    1, on disk (np.memmap) if need be: they are copied only where ids are not in order; `domains`
    [n], empty for none; alpha in [0, 1] is the share of difficulty in the score. Ids in `asked`
    are not ranked; the greedy strategies keep their distance from them.
    """
    whole = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    is_asked = np.array([ids[i] in asked for i in whole], dtype=bool)
    order = whole[~is_asked]
    in_order = len(order) == len(ids) and bool((order == np.arange(len(ids))).all())
    places = rank_normalise(difficulty)[order]
    sorted_embeddings = embeddings if in_order else embeddings[order]
    named = np.array(domains if len(domains) else [""] * len(ids))
    groups = np.unique(named, return_inverse=True)[1][order]
    behind = np.asarray(embeddings[whole[is_asked]], dtype=np.float32)
    pool = Pool(places, np.asarray(sorted_embeddings, dtype=np.float32), groups, behind)
    n_chosen = min(n_chosen, len(order))
    return ranking(pool, STRATEGIES[strategy](pool, n_chosen, alpha, seed), n_chosen, order)


def bridge(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """BRIDGE: greedy by alpha * d + (1 - alpha) * v."""
    return greedy(pool, n_chosen, alpha)


def bridge_static(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """The top B of alpha * d + (1 - alpha) * novelty, which does not know what else is chosen.

    The literal "top-B of the combination" (stated, arXiv 2512.20403); novelty, the rank-normalised
    mean distance to the pool, is a reading.
    """
    centre = pool.embeddings.mean(axis=0, dtype=np.float64)
    novelty = np.empty(len(pool))
    for at in range(0, len(pool), _BLOCK):
        novelty[at : at + _BLOCK] = exact_distances(pool.embeddings[at : at + _BLOCK], centre)
    return _top(pool, n_chosen, alpha * pool.difficulty + (1 - alpha) * rank_normalise(novelty))


def at_random(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """A uniform permutation of the pool, all scores 0. The only one that can do without
    embeddings: where they are [n, 0], no distance is told.
    """
    order, score = stream(seed, "random choice").permutation(len(pool)), np.zeros(len(pool))
    if not pool.embeddings.shape[1]:
        return Choice(order, score)
    chosen = followed(pool, order[:n_chosen], score[:n_chosen], score)
    return replace(chosen, order=order, score=score)


def hardest(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """Difficulty alone: `bridge` at alpha = 1."""
    return _top(pool, n_chosen, pool.difficulty)


def diverse(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """Diversity alone, k-center: `bridge` at alpha = 0."""
    return greedy(pool, n_chosen, 0.0)


def by_medoids(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """The member nearest to the centre of each of B k-means clusters, largest cluster first.

    The score of a pick is its cluster's share of the pool, of the rest the distance to the choice.
    Where rows are so alike that fewer clusters hold any, the farthest rest fills up.
    """
    if not n_chosen:
        return followed(pool, np.empty(0, dtype=np.int64), np.empty(0), 0.0)
    found = k_means(pool.embeddings, n_chosen, seed)
    rows, shares = medoids(found, n_chosen)
    chosen = followed(pool, rows, shares, 0.0, cluster=found.pick)
    n_filled = n_chosen - len(rows)
    if not n_filled:
        return chosen
    picks, score = chosen.order[:n_chosen], chosen.score[:n_chosen]
    return followed(pool, picks, score, 0.0, cluster=found.pick, n_filled=n_filled)


def deita(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """Down the difficulty, taking what is farther than DEITA_DISTANCE from every earlier pick.

    Score first, diversity aware (arXiv 2312.15685; the score there is complexity times quality, the
    assistant's loss in its place is ours). Where fewer than B are that far apart the hardest of the
    rest fill up, and the choice says how many.
    """
    down = hardest_first(pool.difficulty, np.arange(len(pool)))
    taken: list[int] = []
    chosen = np.empty((n_chosen, pool.embeddings.shape[1]), dtype=np.float32)
    for at in range(0, len(down), _BLOCK // 4):
        if len(taken) == n_chosen:
            break
        rows = down[at : at + _BLOCK // 4]
        block = pool.embeddings[rows]
        closest = (block @ chosen[: len(taken)].T).max(axis=1, initial=-1)
        for place in np.flatnonzero(closest < 1 - 2 * DEITA_DISTANCE):
            if closest[place] < 1 - 2 * DEITA_DISTANCE and len(taken) < n_chosen:
                chosen[len(taken)] = block[place]
                taken.append(int(rows[place]))
                np.maximum(closest, block @ block[place], out=closest)
    picks = np.array(taken, dtype=np.int64)
    filling = down[~np.isin(down, picks)][: n_chosen - len(picks)]
    picks = np.concatenate([picks, filling])
    return followed(pool, picks, pool.difficulty[picks], 1.0, n_filled=len(filling))


def by_clusters(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """The hardest of each of N_CLUSTERS k-means clusters, as many as is its share of the pool."""
    k = min(N_CLUSTERS, max(1, n_chosen))
    labels = k_means(pool.embeddings, k, seed).pick
    places = quotas(np.bincount(labels, minlength=k), n_chosen)
    down = hardest_first(pool.difficulty, np.arange(len(pool)))
    by_label = down[np.argsort(labels[down], kind="stable")]
    within = np.arange(len(pool)) - np.searchsorted(labels[by_label], labels[by_label])
    taken = np.sort(by_label[within < places[labels[by_label]]])
    picks = hardest_first(pool.difficulty, taken)
    return followed(pool, picks, pool.difficulty[picks], 1.0, cluster=labels)


def by_domains(pool: Pool, n_chosen: int, alpha: float, seed: int) -> Choice:
    """`bridge` with a quota for each domain, as large as its share of the pool; distances count
    across domains. Without domains it is `bridge`.
    """
    places = quotas(np.bincount(pool.domains), n_chosen)
    return greedy(pool, n_chosen, alpha, pool.domains, places)


def _top(pool: Pool, n_chosen: int, score: np.ndarray) -> Choice:
    picks = hardest_first(score, np.arange(len(pool)))[:n_chosen]
    return followed(pool, picks, score[picks], score)


STRATEGIES: dict[str, Strategy] = {
    "bridge": bridge,
    "bridge_static": bridge_static,
    "random": at_random,
    "hardest": hardest,
    "diverse": diverse,
    "medoids": by_medoids,
    "deita": deita,
    "facility": facility,
    "clusters": by_clusters,
    "domains": by_domains,
}

# What else decides a ranking; the others' stand still when it changes.
BY_ALPHA = frozenset({"bridge", "bridge_static", "facility", "domains"})
BY_SEED = frozenset({"random", "medoids", "facility", "clusters"})
# Whose first places are the same however many are chosen.
NESTED = frozenset({"bridge", "bridge_static", "random", "hardest", "diverse"})
WITHOUT_EMBEDDINGS = frozenset({"random", "hardest"})
