"""One file for each measure of difficulty; each ends in `MEASURE = DifficultyMeasure(...)`."""

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import Registry

MEASURES = Registry("difficulty measure", __name__, "MEASURE", DifficultyMeasure)
