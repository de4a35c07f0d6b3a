"""The objective of DistiLLM: skewed KL, on own texts as soon as the loss stops falling."""

from collections.abc import Mapping

from pydantic import Field

from bridgekd.lm.divergence import build_objective
from bridgekd.lm.objectives import Rollouts, Schedule
from bridgekd.lm.objectives.skew_forward import SkewOptions, compute_skew_forward


class AdaptiveSkewOptions(SkewOptions):
    """The fraction of own texts starts at `on_policy`. Every `window` updates it rises by
    `fraction_step` if the mean loss of the window is not below the one before by more than
    `tolerance`.
    """

    window: int = Field(10, ge=1)
    fraction_step: float = Field(0.1, gt=0, le=1)
    tolerance: float = Field(0.1, ge=0)


def start_fraction(options: AdaptiveSkewOptions) -> Mapping[str, float]:
    """Return the first fraction, and an empty window."""
    return {"fraction": options.on_policy, "sum": 0.0, "n": 0.0}


def advance_fraction(
    state: Mapping[str, float], loss: float, progress: float, options: AdaptiveSkewOptions
) -> Mapping[str, float]:
    """Return the fraction after an update with this loss.

    In the paper's code the fraction rises by 0.1 when the *validation* loss is not below the last
    one + 0.1. Windows of the training loss are our reading, because not every training has a
    validation loss.
    """
    total, n = state["sum"] + loss, state["n"] + 1
    if n < options.window:
        return {**state, "sum": total, "n": n}
    mean, fraction = total / n, state["fraction"]
    if "mean" in state and mean >= state["mean"] + options.tolerance:
        fraction = min(1.0, fraction + options.fraction_step)
    return {"fraction": fraction, "mean": mean, "sum": 0.0, "n": 0.0}


def plan_adaptive_rollouts(
    options: AdaptiveSkewOptions, progress: float, state: Mapping[str, float]
) -> Rollouts:
    """Return rollouts for the fraction of rows that the schedule has reached."""
    return Rollouts(state["fraction"], options.updates_per_wave, options.sampling_temperature)


OBJECTIVE = build_objective(
    compute_skew_forward,
    name="adaptive_skew",
    title="Skewed forward KL with adaptive own texts",
    summary="Skewed forward KL, on texts of the model itself once the loss stops falling.",
    paper="arXiv 2402.03898",
    options=AdaptiveSkewOptions,
    schedule=Schedule(start_fraction, advance_fraction),
    plan=plan_adaptive_rollouts,
)
