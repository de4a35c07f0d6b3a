"""The objective of TAID: the target moves from the model itself to the reference model."""

from collections.abc import Mapping
from math import exp
from typing import TYPE_CHECKING

from pydantic import Field

from bridgekd.lm.divergence import DivergenceOptions, build_objective, compute_kl
from bridgekd.lm.objectives import Schedule

if TYPE_CHECKING:
    from torch import Tensor


class InterpolatedKLOptions(DivergenceOptions):
    """The share t of the reference model in the target: `t_start`, then as the loss falls, but at
    least on a line to `t_end`. alpha: the size of a step; 0 leaves the line. beta: of the average
    of the relative falls. With the paper's constants the line decides in a training of less than
    4,000 updates.
    """

    t_start: float = Field(0.4, gt=0, le=1)
    t_end: float = Field(1.0, gt=0, le=1)
    alpha: float = Field(5e-4, ge=0)
    beta: float = Field(0.99, ge=0, lt=1)


def compute_interpolated_kl(
    log_q: "Tensor", log_p: "Tensor", options: InterpolatedKLOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return KL(r || q) of each token in nats, [k], with r = softmax((1 - t) z_q + t z_p), which
    has no gradient (arXiv 2501.16937). The paper's code returns the cross-entropy, whose gradient
    is the same. Its slope is t.
    """
    t = state["t"]
    log_r = ((1 - t) * log_q.detach() + t * log_p).log_softmax(-1)
    return compute_kl(log_r, log_q)


def start_schedule(options: InterpolatedKLOptions) -> Mapping[str, float]:
    """Return t = t_start."""
    return {"t": options.t_start, "momentum": 0.0}


def advance_schedule(
    state: Mapping[str, float], loss: float, progress: float, options: InterpolatedKLOptions
) -> Mapping[str, float]:
    """Return t after an update with this loss (arXiv 2501.16937, algorithm 1). One step per update
    instead of per micro-batch is our reading.
    """
    if "loss" not in state:
        return {**state, "loss": loss}
    fall = (state["loss"] - loss) / (state["loss"] + 1e-15)
    momentum = options.beta * state["momentum"] + (1 - options.beta) * fall
    step = options.alpha * (1 - state["t"]) / (1 + exp(-max(-500.0, momentum)))
    line = options.t_start + (options.t_end - options.t_start) * progress
    t = min(options.t_end, max(line, state["t"] + step))
    return {"t": t, "momentum": momentum, "loss": loss}


OBJECTIVE = build_objective(
    compute_interpolated_kl,
    name="interpolated_kl",
    title="KL from an interpolated target",
    summary="The target moves from the model itself to a reference model.",
    paper="arXiv 2501.16937",
    options=InterpolatedKLOptions,
    schedule=Schedule(start_schedule, advance_schedule),
)
