"""Lazy greedy maximization of a monotone submodular objective (Minoux 1978).

The one idea: a gain never increases, so a gain that was computed once is an upper bound from then
on. Only the rows with the highest bounds are computed again.
"""

from collections.abc import Callable

import numpy as np

_BLOCK_SIZE = 64


def select_lazily(
    bound: np.ndarray,
    n_selected: int,
    compute_gains: Callable[[np.ndarray], np.ndarray],
    add: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the greedy selection and their gains, [B] each. Ties go by row.

    bound: [n], each row's first gain or more; it is changed. compute_gains: the present gains of
    some rows. add: called with each pick. The selection has at least 1 - 1/e of the best objective
    (Nemhauser, Wolsey and Fisher 1978).
    """
    bounded_at = np.full(len(bound), -1)  # number of picks when the bound was computed
    rows, gains = np.empty(n_selected, dtype=np.int64), np.empty(n_selected)
    for n_done in range(n_selected):
        while bounded_at[best := int(np.argmax(bound))] != n_done:
            top = np.argpartition(-bound, min(_BLOCK_SIZE, len(bound) - 1))[:_BLOCK_SIZE]
            is_stale = (bounded_at[top] != n_done) & (bound[top] > -np.inf)
            stale = np.union1d(top[is_stale], [best])
            bound[stale] = compute_gains(stale)
            bounded_at[stale] = n_done
        rows[n_done], gains[n_done] = best, bound[best]
        bound[best] = -np.inf
        add(best)
    return rows, gains
