"""Domain mixtures, one file each. A file ends in `MIXTURE = Mixture(...)`."""

from bridgekd.selection.mixture import Mixture
from bridgekd.variants import Registry

MIXTURES = Registry("mixture", __name__, "MIXTURE", Mixture)
