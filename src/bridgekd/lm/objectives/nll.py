"""Negative log-likelihood of the target tokens: supervised fine-tuning."""

from typing import TYPE_CHECKING

from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.variants import NoOptions

if TYPE_CHECKING:
    from torch import Tensor


def compute_nll(batch: TokenBatch, options: NoOptions | None = None) -> "Tensor":
    """Return the sum of w * NLL over all tokens in nats, a float32 scalar.

    Divided by the sum of weights of an update it is L = NLL(r|x) + lambda * NLL(y|x, r) of BRIDGE
    (arXiv 2512.20403; docs/methods.md, train A), with weight 1 on the tokens of the rationale and
    lambda on those of the answer. That both parts share one normalizer is our reading. With
    negative weights it is the loss of REDI (arXiv 2505.24850), which is not bounded below.
    """
    import torch
    import torch.nn.functional as F

    nll = F.cross_entropy(batch.logits.float(), batch.targets, reduction="none")
    return torch.dot(nll, batch.weights)


OBJECTIVE = Objective(
    name="nll",
    title="Negative log-likelihood",
    summary="The model learns the target tokens (supervised fine-tuning).",
    paper="",
    options=NoOptions,
    needs_reference_model=False,
    compute_loss=compute_nll,
    is_sum_over_tokens=True,
)
