"""One file for each strategy; each ends in `STRATEGY = Strategy(...)`."""

from bridgekd.selection.strategy import Strategy
from bridgekd.variants import Registry

STRATEGIES = Registry("strategy", __name__, "STRATEGY", Strategy)
