"""Total variation: half the sum of absolute differences between p and q."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridgekd.lm.divergence import DivergenceOptions, build_objective

if TYPE_CHECKING:
    from torch import Tensor


def compute_absolute_difference(
    log_q: "Tensor", log_p: "Tensor", options: DivergenceOptions, state: Mapping[str, float]
) -> "Tensor":
    """Return 1/2 sum |p - q| of each token, [k], in [0, 1] (arXiv 2307.15190). It is not smooth at
    p = q, where its gradient is 0. 1 - value is the share of the model's drafts that the reference
    model accepts in speculative decoding.
    """
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


OBJECTIVE = build_objective(
    compute_absolute_difference,
    name="total_variation",
    title="Total variation",
    summary="Half the sum of absolute differences from a reference model.",
    paper="arXiv 2307.15190",
)
