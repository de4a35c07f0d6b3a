"""Orders of training rows, one file each: the order of the rows in every epoch.

An order is a pure function of the lengths. All of it is fixed before the first update, so a resumed
training has the same updates. A file of your own ends in `ORDER = Order(...)`, and a recipe names
it with `student.order: {file: my_order.py}`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from bridgekd.variants import NoOptions, Registry


@dataclass(frozen=True, slots=True)
class Order:
    """`arrange(lengths, rng, options)` returns a permutation of n rows: one epoch, in its order.

    lengths: [n], the tokens of a row that have a loss; rows that stay together are one. rng: the
    random stream of all epochs. `options` is a frozen pydantic model.
    """

    name: str
    title: str
    summary: str
    paper: str
    arrange: Callable[[NDArray[np.int64], np.random.Generator, Any], NDArray[np.int64]]
    options: type[BaseModel] = NoOptions


ORDERS: Registry[Order] = Registry("order", "bridgekd.lm.orders", "ORDER", Order)
