"""KL(q || p), reverse KL: the trained model writes only what the reference model may write."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridgekd.lm.divergence import DivergenceOptions, build_objective, compute_kl

if TYPE_CHECKING:
    from torch import Tensor


def compute_reverse_kl(
    log_q: "Tensor", log_p: "Tensor", options: DivergenceOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return KL(q || p) of each token in nats, [k]; its slope is 1."""
    return compute_kl(log_q, log_p)


OBJECTIVE = build_objective(
    compute_reverse_kl,
    name="reverse_kl",
    title="Reverse KL to a reference model",
    summary="The model keeps to the likeliest tokens of a reference model.",
    paper="arXiv 2306.08543",
)
