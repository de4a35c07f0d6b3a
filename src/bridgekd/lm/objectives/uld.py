"""Universal logit distillation (ULD): sorted probabilities of two vocabularies."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.divergence import mix_with_nll
from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.segments import Segment, align_tokens, pair_positions

if TYPE_CHECKING:
    from torch import Tensor


class ULDOptions(BaseModel):
    """weight: of the distance; the negative log-likelihood, which alone knows which token is which,
    has the rest. The paper's 1.5 to 1 is 0.6. temperature: of both distributions. pairs: what is
    compared: `bytes`, the first tokens of the smallest segments with the same bytes, or, as in the
    paper, `position`, token k with token k up to the end of the shorter side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(0.6, ge=0, le=1)
    temperature: float = Field(1.0, gt=0, le=1000)
    pairs: Literal["bytes", "position"] = "bytes"


def compare_sorted(logits: "Tensor", reference_logits: "Tensor", temperature: float) -> "Tensor":
    """Return the sum of |sorted p - sorted q| at each position, [k], in [0, 2], of logits [k, V]
    and [k, U]. The shorter side is padded with zeros (arXiv 2402.12030).
    """
    import torch.nn.functional as F

    q, p = (
        (z.float() / temperature).softmax(-1).sort(-1, descending=True).values
        for z in (logits, reference_logits)
    )
    n_missing = p.shape[1] - q.shape[1]
    q, p = F.pad(q, (0, max(0, n_missing))), F.pad(p, (0, max(0, -n_missing)))
    return (p - q).abs().sum(-1)


def compute_uld(batch: TokenBatch, options: ULDOptions) -> "Tensor":
    """Return the sum over segments of w * distance at its first token, w = the sum of the weights
    of its tokens; 0 for tokens beyond the shorter side.

    At these tokens both models have read the same text. By position, as in the paper, this holds up
    to the first token that differs.
    """
    import torch

    assert batch.reference_logits is not None
    _, is_compared = batch.number_segments()
    weights = batch.sum_segments(batch.weights)
    if batch.reference_mask is not None:
        weights = weights * batch.reference_mask[is_compared]
    values = compare_sorted(
        batch.logits[is_compared], batch.reference_logits[is_compared], options.temperature
    )
    return mix_with_nll(batch, options.weight, torch.dot(values, weights))


def match_tokens(
    our_ends: Sequence[int], their_ends: Sequence[int], options: ULDOptions
) -> list[Segment]:
    """Return the tokens that are compared."""
    match = align_tokens if options.pairs == "bytes" else pair_positions
    return match(our_ends, their_ends)


OBJECTIVE = Objective(
    name="uld",
    title="Universal logit distillation",
    summary="The student's sorted probabilities follow the reference's, whatever the tokenizers.",
    paper="arXiv 2402.12030",
    options=ULDOptions,
    needs_reference_model=True,
    compute_loss=compute_uld,
    match_tokens=match_tokens,
)
