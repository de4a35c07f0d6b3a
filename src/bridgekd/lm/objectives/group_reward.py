"""Rewards of a group of texts to one prompt: what is better than the others becomes likelier."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.objectives import Objective, Rollouts, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor


class GroupRewardOptions(BaseModel):
    """group_size: texts per prompt, whose rewards are compared; a divisor of the batch size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group_size: int = Field(4, ge=2)
    sampling_temperature: float = Field(1.0, gt=0, le=1000)


def compute_policy_loss(batch: TokenBatch, options: GroupRewardOptions) -> "Tensor":
    """Return the sum of -w * A * log q(y) over all tokens, a float32 scalar with the gradient of
    GRPO (arXiv 2402.03300), without its KL term.

    Every text is used in one update, so the ratio to the old model is 1 and nothing is clipped. A
    token's weight w is that of its text divided by the length, as stated there.
    """
    import torch
    import torch.nn.functional as F

    assert batch.advantages is not None, "the trainer sets advantages"
    nll = F.cross_entropy(batch.logits.float(), batch.targets, reduction="none")
    return torch.dot(nll, batch.weights * batch.advantages)


def plan_groups(
    options: GroupRewardOptions, progress: float, state: Mapping[str, float]
) -> Rollouts:
    """Return rollouts for all rows, in groups."""
    return Rollouts(1.0, 1, options.sampling_temperature, options.group_size)


OBJECTIVE = Objective(
    name="group_reward",
    title="Rewards compared in groups",
    summary="Of several texts to one prompt, those with a better reward become likelier.",
    paper="arXiv 2402.03300",
    options=GroupRewardOptions,
    needs_reference_model=False,
    compute_loss=compute_policy_loss,
    is_sum_over_tokens=True,
    plan_rollouts=plan_groups,
    needs_reward=True,
)
