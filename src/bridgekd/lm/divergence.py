"""What all divergences between a reference model and the trained one share: options and reduction.

At one target position p is the distribution of the reference model and q that of the trained one,
over the tokens that both know. A divergence is 0 where p = q. Its scale near p = q, the *slope* of
an objective, differs between divergences, so equal learning rates are not equal steps.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.objectives import Objective, Schedule, TokenBatch
from bridgekd.lm.objectives.nll import compute_nll

if TYPE_CHECKING:
    from torch import Tensor

# (log q [k, n_shared], log p [k, n_shared], options, state) -> divergence of each token [k] in nats
Divergence = Callable[["Tensor", "Tensor", Any, Mapping[str, float]], "Tensor"]


class DivergenceOptions(BaseModel):
    """weight: of the divergence; the negative log-likelihood has the rest. temperature: of both
    distributions, without the factor temperature^2 of Hinton et al. 2015 (arXiv 1503.02531), which
    is our reading. top_k: compare only the k likeliest tokens of the reference model, and all
    others as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(1.0, gt=0, le=1000)
    top_k: int | None = Field(None, ge=1)


def build_objective(
    compute: Divergence,
    *,
    name: str,
    title: str,
    summary: str,
    paper: str,
    options: type[DivergenceOptions] = DivergenceOptions,
    schedule: Schedule | None = None,
) -> Objective:
    """Return (1 - weight) * NLL + weight * divergence as an objective."""

    def compute_loss(batch: TokenBatch, options: DivergenceOptions) -> "Tensor":
        import torch

        log_q, log_p = compute_log_probs(batch, options.temperature)
        if options.top_k is not None and options.top_k < log_p.shape[1]:
            log_q, log_p = keep_top_tokens(log_q, log_p, options.top_k)
        mask = batch.weights if batch.reference_mask is None else batch.reference_mask
        weights = mask if mask is batch.weights else batch.weights * mask
        loss = options.weight * torch.dot(compute(log_q, log_p, options, batch.state), weights)
        return loss if options.weight == 1 else loss + (1 - options.weight) * compute_nll(batch)

    return Objective(
        name=name,
        title=title,
        summary=summary,
        paper=paper,
        options=options,
        needs_reference_model=True,
        compute_loss=compute_loss,
        is_sum_over_tokens=True,
        schedule=schedule,
    )


def compute_log_probs(batch: TokenBatch, temperature: float) -> tuple["Tensor", "Tensor"]:
    """Return (log q, log p) over the shared tokens, each [m, n_shared] float32.

    Gradients go to log q alone.
    """
    import torch.nn.functional as F

    assert batch.reference_logits is not None
    log_q = F.log_softmax(batch.shared_logits.float() / temperature, dim=-1)
    return log_q, F.log_softmax(batch.reference_logits.float() / temperature, dim=-1)


def keep_top_tokens(log_q: "Tensor", log_p: "Tensor", k: int) -> tuple["Tensor", "Tensor"]:
    """Return both over the k likeliest tokens of p and one bin for all others, each [m, k + 1].

    The k tokens have at most all but 1e-6 of the mass, so that the logarithm of the rest is finite.
    """
    import torch

    top = log_p.topk(k, dim=-1).indices

    def add_bin(log_probs: "Tensor") -> "Tensor":
        kept = log_probs.gather(-1, top)
        rest = (1 - kept.exp().sum(-1, keepdim=True)).clamp(min=1e-6).log()
        return torch.cat([kept, rest], dim=-1)

    return add_bin(log_q), add_bin(log_p)


def compute_kl(log_from: "Tensor", log_to: "Tensor") -> "Tensor":
    """Return KL(from || to) in nats of log-probabilities [k, n], as [k]."""
    return (log_from.exp() * (log_from - log_to)).sum(-1)


def mix_log_probs(log_a: "Tensor", log_b: "Tensor", share: float) -> "Tensor":
    """Return log((1 - share) * a + share * b), [k, n]; share is in (0, 1)."""
    import math

    import torch

    return torch.logaddexp(log_a + math.log1p(-share), log_b + math.log(share))
