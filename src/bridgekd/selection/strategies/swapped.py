"""Random picks, made representative by swaps: KT-swap of kernel thinning.

The picks of `random` under the same seed are replaced one after the other by the question that
lowers the kernel distance (MMD) to the pool most. The distance never rises, so the selection is
never less representative than random's in this kernel (Dwivedi and Mackey, arXiv 2105.05842 and
2110.01593; as code in microsoft/goodpoints).
"""

from dataclasses import dataclass

import numpy as np

from bridgekd.selection.features import whiten
from bridgekd.selection.ranking import Ranking, SelectionPool, draw_order, rank_in_order
from bridgekd.selection.strategy import Strategy
from bridgekd.variants import NoOptions

MAX_REFERENCE = 20_000  # rows that stand for the pool; all of a smaller one
MAX_SWEEPS = 10
SAME_DOMAIN_BONUS = 0.5  # the kernel of two questions of different domains is multiplied by 1 - it
DIFFICULTY_WIDTH = 0.25  # standard deviation of the Gaussian on ranks of difficulty
_TOLERANCE = 1e-4  # in units of one kernel value: above the error of a float32 sum
_BLOCK_SIZE = 512
_MEDIAN_ROWS = 1000


def rank_swapped(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return random's picks after the swaps, then the rest in random's order; all scores are 0.

    A replacement takes the position of the pick that it replaces. Our reading: the kernel, and to
    repeat the sweep until no swap lowers the distance (at most MAX_SWEEPS times).
    """
    order = draw_order(len(pool), seed)
    picks = swap_picks(build_kernel(pool), order[:n_selected])
    rest = order[~np.isin(order, picks)]
    return rank_in_order(pool, np.concatenate([picks, rest]), n_selected)


@dataclass(frozen=True, slots=True)
class ProductKernel:
    """A positive definite kernel with k(x, x) = 1.

    points: float32 [n, k], scaled so that the kernel is exp(-|a - b|^2), times
    1 - SAME_DOMAIN_BONUS for two different `domains` [n].
    """

    points: np.ndarray
    domains: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def compute(self, rows: np.ndarray, others: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the kernel of `rows` [r] and `others` [o], by default all rows: [r, o]."""
        a, b = self.points[rows], self.points[others]
        squares = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
        values = np.exp(-np.maximum(squares - 2 * a @ b.T, 0))
        values[self.domains[rows][:, None] != self.domains[others]] *= 1 - SAME_DOMAIN_BONUS
        return np.asarray(values)

    def sum_over(self, rows: np.ndarray) -> np.ndarray:
        """Return for every row the sum of its kernel with `rows` [r]: float64 [n]."""
        total = np.zeros(len(self))
        for start in range(0, len(rows), _BLOCK_SIZE):
            total += self.compute(rows[start : start + _BLOCK_SIZE]).sum(axis=0, dtype=np.float64)
        return total


def build_kernel(pool: SelectionPool) -> ProductKernel:
    """Return the product of a Gaussian on whitened embeddings of length 1, a Gaussian on the rank
    of difficulty and an equality kernel on domains.

    The bandwidth of the embeddings is their median distance, of 1,000 rows at most.
    """
    rows = whiten(pool)
    sample = rows[:: -(-len(rows) // _MEDIAN_ROWS) or 1]
    squares = 2 - 2 * (sample @ sample.T)[~np.eye(len(sample), dtype=bool)]
    median = float(np.median(squares)) if len(squares) else 0.0
    bandwidth = np.sqrt(median) if median > 0 else 1.0
    columns = [rows / bandwidth, pool.difficulty[:, None] / DIFFICULTY_WIDTH]
    points = np.hstack(columns) / np.sqrt(2)
    return ProductKernel(points.astype(np.float32), pool.domains)


def swap_picks(kernel: ProductKernel, picks: np.ndarray) -> np.ndarray:
    """Return `picks` [B] with swaps that never raise the MMD to the pool.

    With s_j the sum of K[i, j] over the picks i and mu_j the mean of K[j, pool], replacing a by c
    changes B^2 / 2 times the squared MMD by g(c) - g(a), g(c) = s_c - K[a, c] - B mu_c. (k(x, x) is
    1 for all.) Above MAX_REFERENCE rows the pool is represented by evenly spaced rows.
    """
    picks, n = picks.copy(), len(kernel)
    if not 0 < len(picks) < n:
        return picks
    reference = np.arange(0, n, -(-n // MAX_REFERENCE))
    attraction = kernel.sum_over(reference) * (len(picks) / len(reference))
    goal = kernel.sum_over(picks) - attraction
    for _ in range(MAX_SWEEPS):
        before = picks.copy()
        for position in range(len(picks)):
            column = kernel.compute(picks[position : position + 1])[0]
            value = goal - column
            own = value[picks[position]]
            value[picks] = np.inf
            best = int(np.argmin(value))
            if value[best] < own - _TOLERANCE:
                goal += kernel.compute(np.array([best]))[0] - column
                picks[position] = best
        if np.array_equal(picks, before):
            break
    return picks


STRATEGY = Strategy(
    name="swapped",
    title="Random, made representative",
    summary="Starts from random's questions and swaps them until they represent the pool better.",
    paper="KT-swap, arXiv 2105.05842 and 2110.01593",
    options=NoOptions,
    rank=rank_swapped,
    needs_difficulty=True,
    needs_embeddings=True,
    uses_seed=True,
    is_random_draw=True,
)
