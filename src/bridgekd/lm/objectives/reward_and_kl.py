"""The objective of KDRL: rewards of groups of texts, and a KL to the reference model."""

from typing import TYPE_CHECKING

from pydantic import Field

from bridgekd.lm.divergence import compute_log_probs, gather_targets, mask_weights
from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.objectives.group_reward import (
    GroupRewardOptions,
    compute_policy_loss,
    plan_groups,
)

if TYPE_CHECKING:
    from torch import Tensor


class RewardAndKLOptions(GroupRewardOptions):
    """The weight of the KL term goes linearly from `kl_weight` to `final_kl_weight`."""

    kl_weight: float = Field(5e-3, ge=0)
    final_kl_weight: float = Field(1e-3, ge=0)


def compute_reward_and_kl(batch: TokenBatch, options: RewardAndKLOptions) -> "Tensor":
    """Return the loss of `group_reward` plus the sum of w * beta * (log p(y) - log q(y))^2 / 2 in
    nats, whose expected gradient is that of the reverse KL (arXiv 2506.02208, known to us from a
    re-implementation; its sources give two ranges for beta).
    """
    import torch

    log_q, log_p = compute_log_probs(batch, 1.0)
    difference = gather_targets(batch, log_p) - gather_targets(batch, log_q)
    beta = options.kl_weight + batch.progress * (options.final_kl_weight - options.kl_weight)
    kl = torch.dot(difference.square() / 2, mask_weights(batch))
    return compute_policy_loss(batch, options) + beta * kl


OBJECTIVE = Objective(
    name="reward_and_kl",
    title="Rewards and KL to a reference model",
    summary="Texts with a better reward become likelier, near a reference model.",
    paper="arXiv 2506.02208",
    options=RewardAndKLOptions,
    needs_reference_model=True,
    compute_loss=compute_reward_and_kl,
    is_sum_over_tokens=True,
    plan_rollouts=plan_groups,
    needs_reward=True,
)
