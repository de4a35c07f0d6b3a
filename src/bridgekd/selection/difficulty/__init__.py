"""Measures of difficulty, one file each. A file ends in `MEASURE = DifficultyMeasure(...)`."""

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import Registry

MEASURES = Registry("difficulty measure", __name__, "MEASURE", DifficultyMeasure)
