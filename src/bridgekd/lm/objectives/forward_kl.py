"""Forward KL from a reference model beside the negative log-likelihood: knowledge distillation."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.objectives.nll import compute_nll

if TYPE_CHECKING:
    from torch import Tensor


class ForwardKLOptions(BaseModel):
    """The weight of the KL term and the temperature of both distributions in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kd_weight: float = Field(0.3, ge=0, le=1)
    kd_temperature: float = Field(2.0, gt=0, le=1000)


def compute_forward_kl(batch: TokenBatch, temperature: float) -> "Tensor":
    """Return the sum of w * KL(reference || model) over all tokens in nats, a float32 scalar.

    Both distributions are softened by `temperature`. Gradients go to the model's logits alone.
    Without the factor temperature^2 of Hinton et al. 2015 (arXiv 1503.02531): our reading.
    """
    import torch
    import torch.nn.functional as F

    assert batch.reference_logits is not None
    log_p = F.log_softmax(batch.reference_logits.float() / temperature, dim=-1)
    log_q = F.log_softmax(batch.shared_logits.float() / temperature, dim=-1)
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    return torch.dot(kl, batch.weights)


def compute_loss(batch: TokenBatch, options: ForwardKLOptions) -> "Tensor":
    """Return (1 - kd_weight) * NLL + kd_weight * KL, each summed over all tokens."""
    kl = compute_forward_kl(batch, options.kd_temperature)
    return (1 - options.kd_weight) * compute_nll(batch) + options.kd_weight * kl


OBJECTIVE = Objective(
    name="forward_kl",
    title="Forward KL from a reference model",
    summary="The model also follows the next-token distribution of a reference model.",
    paper="arXiv 2410.09037",
    options=ForwardKLOptions,
    needs_reference_model=True,
    compute_loss=compute_loss,
    is_sum_over_tokens=True,
)
