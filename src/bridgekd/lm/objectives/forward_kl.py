"""KL(p || q), forward KL: the trained model covers all that the reference model may write."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridgekd.lm.divergence import DivergenceOptions, build_objective, compute_kl

if TYPE_CHECKING:
    from torch import Tensor


def compute_forward_kl(
    log_q: "Tensor", log_p: "Tensor", options: DivergenceOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return KL(p || q) of each token in nats, [k]; its slope is 1."""
    return compute_kl(log_p, log_q)


OBJECTIVE = build_objective(
    compute_forward_kl,
    name="forward_kl",
    title="Forward KL from a reference model",
    summary="The model follows the next-token distribution of a reference model.",
    paper="arXiv 1503.02531",
)
