"""What all divergences between a reference model and the trained one share: options and reduction.

At one target position p is the distribution of the reference model and q that of the trained one,
over the tokens that both know. A divergence is 0 where p = q. Its scale near p = q, the *slope* of
an objective, differs between divergences, so equal learning rates are not equal steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.objectives import Objective, Rollouts, Schedule, TokenBatch
from bridgekd.lm.objectives.nll import compute_nll

if TYPE_CHECKING:
    from torch import Tensor

# (log q [k, n_shared], log p [k, n_shared], options, state) -> divergence of each token [k] in nats
Divergence = Callable[["Tensor", "Tensor", Any, Mapping[str, float]], "Tensor"]


class OnPolicyOptions(BaseModel):
    """on_policy: the fraction of the training rows whose target the trained model samples itself,
    at `sampling_temperature`. updates_per_wave: sample the targets of so many updates at one time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_policy: float = Field(0.0, ge=0, le=1)
    updates_per_wave: int = Field(1, ge=1)
    sampling_temperature: float = Field(1.0, gt=0, le=1000)


class DivergenceOptions(OnPolicyOptions):
    """weight: of the divergence; the negative log-likelihood has the rest. temperature: of both
    distributions, without the factor temperature^2 of Hinton et al. 2015 (arXiv 1503.02531), which
    is our reading. top_k: compare only the k likeliest tokens of the reference model, and all
    others as one. A target that the trained model samples has no likelihood term.
    """

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
    plan: Callable[[Any, float, Mapping[str, float]], Rollouts | None] | None = None,
) -> Objective:
    """Return (1 - weight) * NLL + weight * divergence as an objective.

    plan: which targets are rollouts, by default those of the options.
    """

    def compute_loss(batch: TokenBatch, options: DivergenceOptions) -> "Tensor":
        import torch

        log_q, log_p = compute_log_probs(batch, options.temperature)
        if options.top_k is not None and options.top_k < log_p.shape[1]:
            log_q, log_p = keep_top_tokens(log_q, log_p, options.top_k)
        divergence = compute(log_q, log_p, options, batch.state)
        return mix_with_nll(batch, options.weight, torch.dot(divergence, mask_weights(batch)))

    return Objective(
        name=name,
        title=title,
        summary=summary,
        paper=paper,
        options=options,
        needs_reference_model=True,
        compute_loss=compute_loss,
        is_sum_over_tokens=True,
        plan_rollouts=plan or plan_rollouts,
        schedule=schedule,
    )


def plan_rollouts(
    options: OnPolicyOptions, progress: float, state: Mapping[str, float]
) -> Rollouts | None:
    """Return the rollouts of the options; None if all targets are given."""
    if not options.on_policy:
        return None
    return Rollouts(options.on_policy, options.updates_per_wave, options.sampling_temperature)


def mix_with_nll(batch: TokenBatch, weight: float, loss: "Tensor") -> "Tensor":
    """Return weight * loss + (1 - weight) * NLL of the batch."""
    if weight == 1:
        return loss
    if batch.is_rollout is not None:  # a model learns no likelihood from its own texts
        batch = replace(batch, weights=batch.weights * ~batch.is_rollout)
    return weight * loss + (1 - weight) * compute_nll(batch)


def mask_weights(batch: TokenBatch) -> "Tensor":
    """Return the weights [m], 0 for a token that the reference model writes otherwise."""
    mask = batch.reference_mask
    return batch.weights if mask is None else batch.weights * mask


def compute_log_probs(batch: TokenBatch, temperature: float) -> tuple["Tensor", "Tensor"]:
    """Return (log q, log p) over the shared tokens, each [m, n_shared] float32.

    Gradients go to log q alone.
    """
    import torch.nn.functional as F

    assert batch.reference_logits is not None
    log_q = F.log_softmax(batch.shared_logits.float() / temperature, dim=-1)
    return log_q, F.log_softmax(batch.reference_logits.float() / temperature, dim=-1)


def gather_targets(batch: TokenBatch, log_probs: "Tensor") -> "Tensor":
    """Return the log-probabilities of the targets, [m], from those of the shared tokens.

    A target that is no shared token gets another one's; `mask_weights` is 0 there.
    """
    import torch

    targets = batch.targets
    if batch.shared_ids is not None:
        targets = torch.searchsorted(batch.shared_ids, targets)
    return log_probs.gather(-1, targets.clamp(max=log_probs.shape[1] - 1)[:, None])[:, 0]


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
