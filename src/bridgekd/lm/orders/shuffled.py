"""Rows in a random order, another one in every epoch."""

import numpy as np
from numpy.typing import NDArray

from bridgekd.lm.orders import Order
from bridgekd.variants import NoOptions


def shuffle_rows(
    lengths: NDArray[np.int64], rng: np.random.Generator, options: NoOptions
) -> NDArray[np.int64]:
    """Return a random permutation."""
    return rng.permutation(len(lengths))


ORDER = Order(
    name="shuffled",
    title="Shuffled",
    summary="Rows in a random order, another one in every epoch.",
    paper="",
    arrange=shuffle_rows,
)
