"""Skewed forward KL of DistiLLM: p against p mixed into q, which bounds the gradient."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from bridgekd.lm.divergence import (
    DivergenceOptions,
    build_objective,
    compute_kl,
    mix_log_probs,
)

if TYPE_CHECKING:
    from torch import Tensor


class SkewOptions(DivergenceOptions):
    """skew: the share of the first distribution that is mixed into the second."""

    skew: float = Field(0.1, gt=0, lt=1)


def compute_skew_forward(
    log_q: "Tensor", log_p: "Tensor", options: SkewOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return KL(p || skew p + (1 - skew) q) of each token in nats, [k] (arXiv 2402.03898). Its
    slope is (1 - skew)^2.
    """
    return compute_kl(log_p, mix_log_probs(log_q, log_p, options.skew))


OBJECTIVE = build_objective(
    compute_skew_forward,
    name="skew_forward",
    title="Skewed forward KL",
    summary="Forward KL with the reference model mixed into the model.",
    paper="arXiv 2402.03898",
    options=SkewOptions,
)
