"""The one-sided test that an arm is not below its reference by more than a margin.

The one idea: mean and variance are those of the two-sided interval, over seeds and questions. With
seeds that differ more than questions do, it is Student's t-test of the differences by seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from bridgekd.stats.intervals import holm_correction
from bridgekd.stats.mixed_effects import (
    Difference,
    compute_variance_of_mean,
    estimate_difference,
)

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """What a comparison of several arms with one reference says of an arm.

    difference: with the two-sided 95 % interval. low: the lower limit of the one-sided 95 %
    interval. The p-values are corrected by Holm over the arms: of "at or below the reference minus
    the margin", of "at or above it", and of "at or below the reference".
    """

    difference: Difference
    low: float
    p_not_below: float
    p_below: float
    p_above: float

    @property
    def is_not_below(self) -> bool | None:
        """Whether the arm is shown not to be below by more than the margin, or to be below; None
        if neither is shown.
        """
        if min(self.p_not_below, self.p_below) >= LEVEL:
            return None
        return self.p_not_below < LEVEL


def compare_with_reference(
    reference: np.ndarray, arms: Mapping[str, np.ndarray], margin: float
) -> dict[str, ArmVerdict]:
    """Return the verdict of each arm: the reference and all arms are 0 or 1 [seeds, questions].

    margin: above 0, a difference in accuracy. An arm that is shown to be above the reference is
    also shown not to be below by more than the margin, because its p-values are no larger.
    """
    gained = {name: np.subtract(arm, reference, dtype=float) for name, arm in arms.items()}
    not_below, above = (
        [compute_one_sided_p(values, bound) for values in gained.values()]
        for bound in (-margin, 0.0)
    )
    columns = (not_below, [1 - p for p in not_below], above)
    adjusted = zip(*map(holm_correction, columns), strict=True)
    return {
        name: ArmVerdict(
            estimate_difference(reference, arms[name]), compute_lower_limit(values), *p_values
        )
        for (name, values), p_values in zip(gained.items(), adjusted, strict=True)
    }


def compute_one_sided_p(values: np.ndarray, bound: float) -> float:
    """Return the p-value of "the mean of `values` [seeds, questions] is at most `bound`".

    Values that are all equal have no variance: 0 if they are above the bound, else 1.
    """
    variance, freedom = compute_variance_of_mean(values)
    excess = float(values.mean()) - bound
    if variance == 0:
        return float(excess <= 0)
    return float(stdtr(freedom, -excess / variance**0.5))


def compute_lower_limit(values: np.ndarray) -> float:
    """Return the lower limit of the one-sided 95 % interval of the mean of `values`
    [seeds, questions].
    """
    variance, freedom = compute_variance_of_mean(values)
    return float(values.mean() - stdtrit(freedom, 1 - LEVEL) * variance**0.5)
