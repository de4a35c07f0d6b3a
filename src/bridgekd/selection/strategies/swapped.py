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
MAX_SWEEPS, MAX_SWEEPS_LARGE = 10, 3  # the latter above MAX_REFERENCE rows
OTHER_DOMAIN = 0.5  # what the kernel of two questions of different domains is multiplied by
DIFFICULTY_WIDTH = 0.25  # standard deviation of the Gaussian on ranks of difficulty
_TOLERANCE = 1e-4  # in units of one kernel value: above the error of a float32 sum
_BLOCK_SIZE = 1024
_MAX_DOMAINS = 64
_MEDIAN_ROWS = 1000


def rank_swapped(pool: SelectionPool, n_selected: int, options: NoOptions, seed: int) -> Ranking:
    """Return random's picks after the swaps, then the rest in random's order; all scores are 0.

    A replacement takes the position of the pick that it replaces. Our reading: the kernel, and to
    repeat the sweep until no swap lowers the distance (at most MAX_SWEEPS times). Of 10,000 rows
    and 500 picks, the first sweep removed 98 % of random's squared distance and the rest 1 %.
    """
    order = draw_order(len(pool), seed)
    picks = swap_picks(build_kernel(pool), order[:n_selected])
    rest = order[~np.isin(order, picks)]
    return rank_in_order(pool, np.concatenate([picks, rest]), n_selected)


@dataclass(frozen=True, slots=True)
class GaussianKernel:
    """k(a, b) = exp(-|a - b|^2) = exp(left_a * right_b), with k(a, a) = 1.

    left: float32 [n, d + 2]. right: float32 [d + 2, n], because BLAS is several times as fast with
    long rows. The last two columns add the squared lengths.
    """

    left: np.ndarray
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def compute(self, rows: np.ndarray, others: slice = slice(None)) -> np.ndarray:
        """Return the kernel of `rows` [r] with `others` [o], by default all rows: [r, o]."""
        exponent = self.left[rows] @ self.right[:, others]
        return np.asarray(np.exp(exponent, out=exponent))

    def sum_over(self, rows: np.ndarray) -> np.ndarray:
        """Return for every row the sum of its kernel with `rows` [r]: float64 [n]."""
        total = np.zeros(len(self))
        for start in range(0, len(self), _BLOCK_SIZE):
            block = slice(start, start + _BLOCK_SIZE)
            for first in range(0, len(rows), _BLOCK_SIZE):
                values = self.compute(rows[first : first + _BLOCK_SIZE], block)
                total[block] += values.sum(axis=0, dtype=np.float64)
        return total


def build_kernel(pool: SelectionPool) -> GaussianKernel:
    """Return the product of a Gaussian on whitened embeddings of length 1, a Gaussian on the rank
    of difficulty and an equality kernel on domains.

    The bandwidth of the embeddings is their median distance, of 1,000 rows at most. The kernel of
    two questions of different domains is multiplied by OTHER_DOMAIN. Domains after the 64 largest
    count as one.
    """
    rows = whiten(pool)
    sample = rows[:: -(-len(rows) // _MEDIAN_ROWS) or 1]
    squares = 2 - 2 * (sample @ sample.T)[~np.eye(len(sample), dtype=bool)]
    median = float(np.median(squares)) if len(squares) else 0.0
    bandwidth = np.sqrt(median) if median > 0 else 1.0
    largest = np.argsort(-np.bincount(pool.domains), kind="stable")[:_MAX_DOMAINS]
    is_domain = pool.domains[:, None] == largest
    # Two different rows of this indicator differ by a square of -log(OTHER_DOMAIN).
    indicator = np.column_stack([is_domain, ~is_domain.any(axis=1)]) * np.sqrt(
        -np.log(OTHER_DOMAIN) / 2
    )
    points = np.hstack(
        [
            rows / (bandwidth * np.sqrt(2)),
            pool.difficulty[:, None] / (DIFFICULTY_WIDTH * np.sqrt(2)),
            indicator,
        ]
    )
    square = (points**2).sum(axis=1)
    one = np.ones(len(points))
    left = np.column_stack([points * np.sqrt(2), -square, -one])
    right = np.column_stack([points * np.sqrt(2), one, square])
    return GaussianKernel(left.astype(np.float32), right.T.astype(np.float32, order="C"))


def swap_picks(kernel: GaussianKernel, picks: np.ndarray) -> np.ndarray:
    """Return `picks` [B] with swaps that never raise the MMD to the pool.

    With s_j the sum of K[i, j] over the picks i and mu_j the mean of K[j, pool], replacing a by c
    changes B^2 / 2 times the squared MMD by g(c) - g(a), g(c) = s_c - K[a, c] - B mu_c, as K[c, c]
    is 1 for all c. Above MAX_REFERENCE rows the pool is represented by evenly spaced rows.
    """
    picks, n = picks.copy(), len(kernel)
    if not 0 < len(picks) < n:
        return picks
    reference = np.arange(0, n, -(-n // MAX_REFERENCE))
    attraction = kernel.sum_over(reference) * (len(picks) / len(reference))
    goal = kernel.sum_over(picks) - attraction
    for _ in range(MAX_SWEEPS if n <= MAX_REFERENCE else MAX_SWEEPS_LARGE):
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
