"""A curriculum: short targets first, in every epoch."""

import numpy as np
from numpy.typing import NDArray

from bridgekd.lm.orders import Order
from bridgekd.variants import NoOptions


def arrange_easy_first(
    lengths: NDArray[np.int64], rng: np.random.Generator, options: NoOptions
) -> NDArray[np.int64]:
    """Return the rows by ascending length; rows of equal length are shuffled.

    The document study of FLAN-T5 (arXiv 2409.11282) trains with a curriculum. That a short target
    is an easy one, and that every epoch starts again with the easy ones, is our reading: we know
    the abstract alone.
    """
    shuffled = rng.permutation(len(lengths))
    return shuffled[np.argsort(lengths[shuffled], kind="stable")]


ORDER = Order(
    name="easy_first",
    title="Easy rows first",
    summary="Every epoch goes from short targets to long ones.",
    paper="arXiv 2409.11282",
    arrange=arrange_easy_first,
)
