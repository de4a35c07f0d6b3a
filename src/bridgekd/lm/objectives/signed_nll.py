"""Negative log-likelihood with negative weights (REDI, arXiv 2505.24850), bounded below."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.objectives import Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


class SignedNLLOptions(BaseModel):
    """max_nll: a token to unlearn whose loss is above this, in nats, has no gradient. min_weight:
    the most negative weight of a token. The paper has neither bound; both values are ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_nll: float = Field(10.0, gt=0)
    min_weight: float = Field(-0.1, lt=0)


def compute_signed_nll(batch: TokenBatch, options: SignedNLLOptions) -> "Tensor":
    """Return the sum of w * NLL over all tokens in nats, a float32 scalar. For w < 0 it is
    max(w, min_weight) * min(NLL, max_nll).

    With weights of 1 / n on the n tokens of a correct text and -alpha / n on those of a wrong one,
    divided by the positive weight, it is the loss of REDI (section 3.2):
    L = E[NLL(correct) / n_correct - alpha * NLL(wrong) / n_wrong].
    """
    import torch
    import torch.nn.functional as F

    nll = F.cross_entropy(batch.logits.float(), batch.targets, reduction="none")
    bounded = torch.where(batch.weights < 0, nll.clamp(max=options.max_nll), nll)
    return torch.dot(bounded, batch.weights.clamp(min=options.min_weight))


OBJECTIVE = Objective(
    name="signed_nll",
    title="Signed negative log-likelihood",
    summary="The model learns correct texts and unlearns wrong ones, within bounds.",
    paper="arXiv 2505.24850",
    options=SignedNLLOptions,
    needs_reference_model=False,
    compute_loss=compute_signed_nll,
    is_sum_over_tokens=True,
)
