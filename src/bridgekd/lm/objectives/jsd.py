"""Generalized Jensen-Shannon divergence between forward and reverse KL, as in GKD."""

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


class JSDOptions(DivergenceOptions):
    """beta: the share of p in the mixture m. At 0 and 1 the divergence is 0 for all models: use
    forward_kl or reverse_kl. relative: divide by beta * (1 - beta), so that the slope is 1.
    """

    beta: float = Field(0.5, gt=0, lt=1)
    relative: bool = False


def compute_jsd(
    log_q: "Tensor", log_p: "Tensor", options: JSDOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return beta KL(p || m) + (1 - beta) KL(q || m) of each token in nats, [k], with
    m = beta p + (1 - beta) q (arXiv 2306.13649). Its slope is beta * (1 - beta).
    """
    log_m = mix_log_probs(log_q, log_p, options.beta)
    value = options.beta * compute_kl(log_p, log_m) + (1 - options.beta) * compute_kl(log_q, log_m)
    return value / (options.beta * (1 - options.beta)) if options.relative else value


OBJECTIVE = build_objective(
    compute_jsd,
    name="jsd",
    title="Jensen-Shannon divergence",
    summary="A divergence between forward and reverse KL.",
    paper="arXiv 2306.13649",
    options=JSDOptions,
)
