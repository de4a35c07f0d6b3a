"""Skewed reverse KL of DistiLLM: q against q mixed into p, which bounds the gradient."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridgekd.lm.divergence import build_objective, compute_kl, mix_log_probs
from bridgekd.lm.objectives.skew_forward import SkewOptions

if TYPE_CHECKING:
    from torch import Tensor


def compute_skew_reverse(
    log_q: "Tensor", log_p: "Tensor", options: SkewOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return KL(q || (1 - skew) p + skew q) of each token in nats, [k] (arXiv 2402.03898). Its
    slope is (1 - skew)^2.
    """
    return compute_kl(log_q, mix_log_probs(log_p, log_q, options.skew))


OBJECTIVE = build_objective(
    compute_skew_reverse,
    name="skew_reverse",
    title="Skewed reverse KL",
    summary="Reverse KL with the model mixed into the reference model.",
    paper="arXiv 2402.03898",
    options=SkewOptions,
)
