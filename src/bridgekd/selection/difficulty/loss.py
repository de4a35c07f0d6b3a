"""The loss of the gold answer."""

from bridgekd.selection.measure import DifficultyMeasure
from bridgekd.variants import NoOptions

MEASURE = DifficultyMeasure(
    name="loss",
    title="Loss",
    summary="The mean loss of the gold answer's tokens.",
    paper="arXiv 2512.20403",
    options=NoOptions,
    scores_loss=True,
)
