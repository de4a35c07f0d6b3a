"""Approximate likelihood matching (ALM): log-probabilities of the same bytes in two tokenizers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.divergence import mix_with_nll
from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.segments import Segment, align_tokens

if TYPE_CHECKING:
    from torch import Tensor

# A segment that a model is certain of counts as if its log-probability were this, in nats.
MAX_LOGPROB = -1e-6


class ALMOptions(BaseModel):
    """weight: of the comparison; the negative log-likelihood has the rest. temperature: the root of
    the probability of a segment, so that long segments are compared, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(100.0, gt=0, le=1e6)


def compare_likelihoods(log_q: "Tensor", log_p: "Tensor", temperature: float) -> "Tensor":
    """Return tau * (a log(a/b) + (1 - a) log((1 - a)/(1 - b))) of each segment, [n], with
    a = exp(log_p / tau) of the reference model and b = exp(log_q / tau) of the trained one.

    arXiv 2503.20083 states the binary cross-entropy of a and b. It is 0 where the models agree
    because its value at agreement is subtracted, and has a finite limit for a large temperature
    because of the factor tau. Both are ours. The first changes no gradient.
    """
    import torch

    log_a = log_p.clamp(max=MAX_LOGPROB) / temperature
    log_b = log_q.clamp(max=MAX_LOGPROB) / temperature
    rest_a, rest_b = -torch.expm1(log_a), -torch.expm1(log_b)
    value = log_a.exp() * (log_a - log_b) + rest_a * (rest_a.log() - rest_b.log())
    return temperature * value


def compute_alm(batch: TokenBatch, options: ALMOptions) -> "Tensor":
    """Return the sum over segments of w * comparison, w = the sum of the weights of its tokens.

    The published code weighs a segment by its tokens or by 1; the paper's debiasing of segments
    that end inside a word is left out.
    """
    import torch
    import torch.nn.functional as F

    assert batch.reference_logprobs is not None, "set match_tokens in the objective"
    _, is_first = batch.number_segments()
    logprobs = -F.cross_entropy(batch.logits.float(), batch.targets, reduction="none")
    log_q = batch.sum_segments(logprobs)
    log_p = batch.reference_logprobs[is_first]
    values = compare_likelihoods(log_q, log_p, options.temperature)
    return mix_with_nll(batch, options.weight, torch.dot(values, batch.sum_segments(batch.weights)))


def match_bytes(
    our_ends: Sequence[int], their_ends: Sequence[int], options: ALMOptions
) -> list[Segment]:
    """Return the smallest segments that cover the same bytes."""
    return align_tokens(our_ends, their_ends)


OBJECTIVE = Objective(
    name="alm",
    title="Approximate likelihood matching",
    summary="The student gives the same bytes the same probability, whatever the tokenizers.",
    paper="arXiv 2503.20083",
    options=ALMOptions,
    needs_reference_model=False,
    compute_loss=compute_alm,
    match_tokens=match_bytes,
)
