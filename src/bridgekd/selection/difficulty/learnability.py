"""The learnability of a question: neither always right nor always wrong."""

from bridgekd.selection.difficulty.pass_rate import PassRateOptions
from bridgekd.selection.measure import DifficultyMeasure


def compute_learnability(pass_rate: float) -> float:
    """Return 4 p (1 - p), in [0, 1]; 1 if half of the rationales are right.

    LILO (arXiv 2502.12272) trains where p (1 - p) is largest; the factor 4 is ours.
    >>> compute_learnability(0.25)
    0.75
    """
    return 4 * pass_rate * (1 - pass_rate)


MEASURE = DifficultyMeasure(
    name="learnability",
    title="Learnability",
    summary="4 p (1 - p) of the pass rate p of the assistant's sampled rationales before its "
    "warm-up.",
    paper="arXiv 2502.12272",
    options=PassRateOptions,
    score_pass_rate=compute_learnability,
    count_answers=lambda options: options.n_samples,
)
