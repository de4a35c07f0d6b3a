"""Adaptive KL: forward KL for likely tokens, reverse KL for the others, by where q is wrong."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from bridgekd.lm.divergence import DivergenceOptions, build_objective, compute_kl

if TYPE_CHECKING:
    from torch import Tensor


class AdaptiveKLOptions(DivergenceOptions):
    """head_mass: tokens are in the head while the likelier ones have less of p than this."""

    head_mass: float = Field(0.5, gt=0, le=1)


def compute_adaptive_kl(
    log_q: "Tensor", log_p: "Tensor", options: AdaptiveKLOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return w KL(p || q) + (1 - w) KL(q || p) of each token in nats, [k] (arXiv 2404.02657).

    w is the part of sum |p - q| that is in the head. It has no gradient, which is our reading. At
    p = q it is 0/0 in published code; here w is 1/2 and the value 0. The slope is 1.
    """
    p, order = log_p.exp().sort(dim=-1, descending=True)
    gap = (p - log_q.detach().exp().gather(-1, order)).abs()
    is_head = p.cumsum(-1) - p < options.head_mass
    total = gap.sum(-1)
    share = (gap * is_head).sum(-1) / total.clamp(min=1e-30)
    share = share.where(total > 0, 0.5)
    return share * compute_kl(log_p, log_q) + (1 - share) * compute_kl(log_q, log_p)


OBJECTIVE = build_objective(
    compute_adaptive_kl,
    name="adaptive_kl",
    title="Adaptive KL",
    summary="Forward and reverse KL, weighted by where the model differs.",
    paper="arXiv 2404.02657",
    options=AdaptiveKLOptions,
)
