"""The objective of MiniLLM, simplified: reverse KL of whole sequences by policy gradient."""

from typing import TYPE_CHECKING

from pydantic import Field

from bridgekd.lm.divergence import (
    OnPolicyOptions,
    compute_kl,
    compute_log_probs,
    gather_targets,
    mask_weights,
    plan_rollouts,
)
from bridgekd.lm.objectives import Objective, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


class SequenceReverseKLOptions(OnPolicyOptions):
    """gamma: how much a token counts what follows it; 0 counts the token alone. sequence_weight: of
    the policy gradient. token_weight: of the exact reverse KL of each token. clip: the largest log
    ratio of a token.
    """

    on_policy: float = Field(1.0, ge=0, le=1)
    gamma: float = Field(0.95, ge=0, lt=1)
    sequence_weight: float = Field(1.0, ge=0)
    token_weight: float = Field(1.0, ge=0)
    clip: float = Field(100.0, gt=0)


def compute_advantages(log_ratio: "Tensor", sequence_ids: "Tensor", gamma: float) -> "Tensor":
    """Return the advantage of each token, [m], from log p(y) - log q(y), [m].

    The mean of the log ratios from the token to the end of its sequence, weighted by
    gamma^distance. MiniLLM divides the discounted sum by the remaining length and whitens it. That
    the length is discounted, too, is our reading: with gamma 0 the advantage is the log ratio, as
    in on-policy distillation.
    """
    advantages: list[float] = []
    total, length, following = 0.0, 0.0, -1
    pairs = zip(log_ratio.tolist(), sequence_ids.tolist(), strict=True)
    for ratio, sequence in reversed(list(pairs)):
        factor = gamma if sequence == following else 0.0
        total, length, following = ratio + factor * total, 1 + factor * length, sequence
        advantages.append(total / length)
    return log_ratio.new_tensor(advantages[::-1])


def compute_sequence_reverse_kl(batch: TokenBatch, options: SequenceReverseKLOptions) -> "Tensor":
    """Return the sum over tokens of w * (sequence_weight * -A log q(y) + token_weight * KL(q || p))
    in nats; A has no gradient, and is 0 for a target that is not the model's own.

    The form is that of TRL's former MiniLLM trainer. The mixed sampling, the importance weights and
    the epochs of PPO of arXiv 2306.08543 are left out.
    """
    import torch

    log_q, log_p = compute_log_probs(batch, 1.0)
    loss = options.token_weight * torch.dot(compute_kl(log_q, log_p), mask_weights(batch))
    if batch.is_rollout is None or not options.sequence_weight:
        return loss
    own = gather_targets(batch, log_q)
    ratio = (gather_targets(batch, log_p) - own).detach()
    mask = 1.0 if batch.reference_mask is None else batch.reference_mask
    ratio = ratio.clamp(-options.clip, options.clip) * mask
    advantages = compute_advantages(ratio, batch.sequence_ids, options.gamma)
    weights = mask_weights(batch) * batch.is_rollout
    return loss - options.sequence_weight * torch.dot(advantages * own, weights)


OBJECTIVE = Objective(
    name="sequence_reverse_kl",
    title="Reverse KL of whole sequences",
    summary="The model lowers the reverse KL of the sequences that it writes.",
    paper="arXiv 2306.08543",
    options=SequenceReverseKLOptions,
    needs_reference_model=True,
    compute_loss=compute_sequence_reverse_kl,
    plan_rollouts=plan_rollouts,
)
