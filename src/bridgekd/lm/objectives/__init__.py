"""Training objectives, one file each: what a model minimizes on the target tokens.

An objective is a function from one micro-batch to the *sum* of its tokens' losses. The trainer
divides by the positive weight of the whole update. So a loss does not depend on how an update is
split into micro-batches or processes. A file of your own ends in `OBJECTIVE = Objective(...)`, and
a recipe names it with `{file: my_objective.py}`. It imports torch inside its function, because
`plan` checks options where torch is not installed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bridgekd.lm.segments import Segment
from bridgekd.variants import Registry, VariantSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """The m target tokens of a micro-batch, or of a part of it.

    A sequence is split over two batches only for an objective that `is_sum_over_tokens`, or between
    two segments for one with `match_tokens`.

    logits [m, vocabulary] predict `targets` [m], in the dtype of the model, with gradients.
    weights [m] float32: the loss weight of each token, negative for a token to unlearn.
    sequence_ids [m] int64: the sequence of each token, counted from 0, ascending.
    reference_logits [m, n_shared]: those of the reference model for the same tokens, without
    gradients; None for an objective that needs none.
    shared_ids [n_shared]: the tokens that both models know; None if they are the first n_shared.
    reference_mask [m]: 0 for a token that the reference model writes otherwise, else 1; None if all
    are 1. segment_ids [m] int64, ascending: the segment of each token; None if each is its own.
    reference_logprobs [m] float32: the log-probability of each token's segment for the reference
    model, in nats, or None. is_rollout [m] bool: whether the trained model wrote the target itself;
    None: nowhere. advantages [m] float32: of the reward of each token's sequence, 0 for a given
    target; None without rewards. progress: the fraction of all updates that are done, in [0, 1).
    state: what the objective's schedule keeps from update to update.
    """

    logits: "Tensor"
    targets: "Tensor"
    weights: "Tensor"
    sequence_ids: "Tensor"
    reference_logits: "Tensor | None" = None
    shared_ids: "Tensor | None" = None
    reference_mask: "Tensor | None" = None
    is_rollout: "Tensor | None" = None
    advantages: "Tensor | None" = None
    progress: float = 0.0
    state: Mapping[str, float] = field(default_factory=dict)
    segment_ids: "Tensor | None" = None
    reference_logprobs: "Tensor | None" = None

    def number_segments(self) -> tuple["Tensor", "Tensor"]:
        """Return the segment of each token, from 0, and whether it is its first one, each [m]."""
        import torch

        ids = torch.arange(len(self.targets), device=self.targets.device)
        if self.segment_ids is not None:
            ids = torch.unique_consecutive(self.segment_ids, return_inverse=True)[1]
        is_first = torch.ones_like(ids, dtype=torch.bool)
        is_first[1:] = ids[1:] != ids[:-1]
        return ids, is_first

    def sum_segments(self, values: "Tensor") -> "Tensor":
        """Return the sums of values [m] over the n segments, [n]."""
        ids, is_first = self.number_segments()
        return values.new_zeros(int(is_first.sum())).index_add(0, ids, values)

    @property
    def shared_logits(self) -> "Tensor":
        """The logits of the tokens that both models know, [m, n_shared].

        Models of one vocabulary may pad it to different sizes. A softmax over them renormalizes.
        """
        assert self.reference_logits is not None, "set needs_reference_model in the objective"
        if self.shared_ids is not None:
            return self.logits[:, self.shared_ids]
        return self.logits[:, : self.reference_logits.shape[1]]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Which targets the trained model samples itself: `fraction` of the rows of a wave.

    A wave is `updates_per_wave` updates, whose rollouts are sampled at one time. The rollouts of an
    update have the same prompt in groups of `group_size`, whose rewards are compared.
    """

    fraction: float
    updates_per_wave: int = 1
    temperature: float = 1.0
    group_size: int = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """What an objective keeps from update to update. A checkpoint has it.

    start(options) returns the first state. advance(state, loss, progress, options) returns the
    state after an update with this mean loss; `progress` is the one that the update had.
    """

    start: Callable[[Any], Mapping[str, float]]
    advance: Callable[[Mapping[str, float], float, float, Any], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Objective:
    """A training objective. `compute_loss(batch, options)` returns the sum over the batch's tokens
    of weight times loss, a float32 scalar with gradients.

    `options` is a frozen pydantic model. `needs_reference_model`: whether batches have the logits
    of a second model, which must have the vocabulary of the trained one. `is_sum_over_tokens`:
    whether the loss of a token needs no other token of its sequence. Then a long sequence is split
    into parts, whose logits take less memory.
    `match_tokens(our_ends, their_ends, options)`: which tokens of two tokenizers are compared, as
    segments, from the bytes where they end; None if both models must have the same tokens. With it
    and without `needs_reference_model`, batches have the log-probabilities of segments, which a
    reference model gave before the training.
    `plan_rollouts(options, progress, state)`: which targets the trained model samples itself
    (on-policy distillation, arXiv 2306.13649); None if it never does.
    needs_reward: whether batches have advantages. schedule: None for an objective without a state.
    """

    name: str
    title: str
    summary: str
    paper: str
    options: type[BaseModel]
    needs_reference_model: bool
    compute_loss: "Callable[[TokenBatch, Any], Tensor]"
    is_sum_over_tokens: bool = False
    plan_rollouts: Callable[[Any, float, Mapping[str, float]], Rollouts | None] | None = None
    needs_reward: bool = False
    schedule: Schedule | None = None
    match_tokens: Callable[[Sequence[int], Sequence[int], Any], list[Segment]] | None = None

    @property
    def needs_logprobs(self) -> bool:
        return self.match_tokens is not None and not self.needs_reference_model


def estimate_rollout_fraction(settings: VariantSettings) -> float:
    """Return the fraction of targets that the trained model samples, at the start of a training."""
    objective, options = OBJECTIVES.load(settings), OBJECTIVES.parse_options(settings)
    if objective.plan_rollouts is None:
        return 0.0
    state = {} if objective.schedule is None else objective.schedule.start(options)
    rollouts = objective.plan_rollouts(options, 0.0, state)
    return 0.0 if rollouts is None else rollouts.fraction


OBJECTIVES: Registry[Objective] = Registry(
    "objective", "bridgekd.lm.objectives", "OBJECTIVE", Objective
)
