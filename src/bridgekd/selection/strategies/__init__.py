"""The selection strategies, one file each. Every file ends in `STRATEGY = Strategy(...)`."""

from bridgekd.selection.strategy import Strategy
from bridgekd.variants import Registry

STRATEGIES = Registry("strategy", __name__, "STRATEGY", Strategy)
