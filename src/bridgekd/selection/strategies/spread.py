"""Random selection that is spread over the pool: the local pivotal method.

Every question has the chance B / n of being picked, as in random selection, so the expected number
of picks in any group is the same. What falls is the variance: of two similar questions one takes
chance from the other, so a draw seldom picks both (Deville and Tille 1998; Grafstroem, Lundstroem
and Schelin 2012).
"""

from collections.abc import Iterator

import numpy as np

from bridgekd.rng import make_rng
from bridgekd.selection.features import fit_whitening
from bridgekd.selection.ranking import Ranking, SelectionPool, rank_in_order
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

CELL_SIZE = 1024  # rows whose distances are in memory at once
_MAX_DOMAINS = 64  # domains with a coordinate, largest first


def rank_spread(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return the draw in random order, then the rest in random order; all scores are 0.

    So a budget that ends early has bought a random part of the draw. Our reading: the coordinates,
    and the cells for pools above `CELL_SIZE` (R's SamplingBigData bounds the search for neighbors
    by a tree likewise). Both change the variance and not the chances.
    """
    rng = make_rng(seed, "spread")
    is_picked = draw_pivotal(build_coordinates(pool), n_selected, rng)
    order = rng.permutation(len(pool))
    return rank_in_order(pool, order[np.argsort(~is_picked[order], kind="stable")], n_selected)


def build_coordinates(pool: SelectionPool) -> np.ndarray:
    """Return the space of a pool, float32 [n, k], with standard deviation 1 in every column.

    The columns: whitened embeddings, rank of difficulty, and one column for each domain.
    """
    sizes = np.bincount(pool.domains)
    largest = np.argsort(-sizes, kind="stable")[:_MAX_DOMAINS]
    columns = np.column_stack(
        [
            fit_whitening(pool.embeddings).apply(pool.embeddings),
            pool.difficulty,
            pool.domains[:, None] == largest[sizes[largest] > 0],
        ]
    )
    deviation = columns.std(axis=0)
    return np.asarray((columns / np.where(deviation > 0, deviation, 1)).astype(np.float32))


def draw_pivotal(
    points: np.ndarray,
    n_selected: int,
    rng: np.random.Generator,
    *,
    cell_size: int = CELL_SIZE,
) -> np.ndarray:
    """Return which of the rows of `points` [n, k] are picked, exactly `n_selected`: bool [n].

    Each undecided question has a chance; at first all have B / n. A duel of two near questions,
    whose chances add up to t, decides one of them. If t < 1 the loser gets 0 and the winner t. Else
    the winner gets 1 and the loser t - 1. The expected chance of both stays the same in each duel.
    Chances are integers in units of 1 / n, so they are kept exactly. Duels are held inside cells of
    near questions; the one undecided question that a cell leaves meets those of other cells.
    """
    chances = np.full(len(points), n_selected, dtype=np.int64)
    undecided = np.arange(len(points))[: len(points) if 0 < n_selected < len(points) else 0]
    while len(undecided) > 1:
        cells = _split(points, undecided, cell_size)
        left = [_decide(points, cell, chances, rng) for cell in cells]
        undecided = np.sort(np.concatenate(left))
    return np.asarray(chances == len(points)) if n_selected else np.zeros(len(points), dtype=bool)


def _split(points: np.ndarray, rows: np.ndarray, cell_size: int) -> Iterator[np.ndarray]:
    """Yield cells of at most `cell_size` rows, by halves along the widest coordinate."""
    if len(rows) <= cell_size:
        yield rows
        return
    widest = int(np.argmax(points[rows].var(axis=0)))
    order = rows[np.argsort(points[rows, widest], kind="stable")]
    yield from _split(points, order[: len(rows) // 2], cell_size)
    yield from _split(points, order[len(rows) // 2 :], cell_size)


def _decide(
    points: np.ndarray, rows: np.ndarray, chances: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Hold duels until at most one row is undecided, and return it: [0] or [1]."""
    cell, whole = points[rows], len(points)
    square = np.einsum("ij,ij->i", cell, cell)
    distance = square[:, None] + square - 2 * cell @ cell.T
    np.fill_diagonal(distance, np.inf)
    chance, alive = chances[rows].tolist(), list(range(len(rows)))
    place = list(range(len(rows)))  # of each row in `alive`
    for draw, luck in rng.random((len(rows), 2)).tolist():
        if len(alive) < 2:
            break
        i = alive[int(draw * len(alive))]
        j = int(distance[i].argmin())
        total = chance[i] + chance[j]
        if total < whole:
            winner, loser = (i, j) if luck * total < chance[i] else (j, i)
            chance[winner], chance[loser] = total, 0
        else:
            i_wins = luck * (2 * whole - total) < whole - chance[j]
            winner, loser = (i, j) if i_wins else (j, i)
            chance[winner], chance[loser] = whole, total - whole
        for row in (i, j):
            if chance[row] in (0, whole):
                distance[:, row] = np.inf
                alive[place[row]] = alive[-1]
                place[alive[-1]] = place[row]
                alive.pop()
    chances[rows] = chance
    return rows[alive]


STRATEGY = Strategy(
    name="spread",
    title="Random, spread",
    summary="Draws at random with the same chance for every question, but seldom two similar ones.",
    paper="local pivotal method, Grafstroem, Lundstroem and Schelin 2012",
    options=NoOptions,
    rank=rank_spread,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_seed=True,
    is_random_draw=True,
)
