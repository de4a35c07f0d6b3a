"""Lazy greedy maximization of a monotone submodular objective (Minoux 1978).

The one idea: a gain never increases, so a gain that was computed once is an upper bound from then
on. Only the rows with the highest bounds are computed again.
"""

from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np

_FIRST_BLOCK, _MAX_BLOCK = 4, 64  # rows computed at once: few suffice for most picks


def select_lazily(
    bound: np.ndarray,
    n_selected: int,
    compute_gains: Callable[[np.ndarray], np.ndarray],
    add: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the greedy selection and their gains, [B] each. Ties go by row.

    bound: [n], each row's first gain or more. compute_gains: the present gains of
    some rows. add: called with each pick. The selection has at least 1 - 1/e of the best objective
    (Nemhauser, Wolsey and Fisher 1978).
    """
    order = np.lexsort((np.arange(len(bound)), -bound))
    # (minus the bound, row, number of picks when the bound was computed); sorted, so it is a heap.
    heap = [(-b, row, -1) for b, row in zip(bound[order].tolist(), order.tolist(), strict=True)]
    rows, gains = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    for n_done in range(n_selected):
        size = _FIRST_BLOCK
        while heap[0][2] != n_done:
            stale: list[int] = []
            while heap and len(stale) < size and heap[0][2] != n_done:
                stale.append(heappop(heap)[1])
            for gain, row in zip(compute_gains(np.array(stale)).tolist(), stale, strict=True):
                heappush(heap, (-gain, row, n_done))
            size = min(2 * size, _MAX_BLOCK)
        negative, best, _ = heappop(heap)
        rows[n_done], gains[n_done] = best, -negative
        add(best)
    return rows, gains
