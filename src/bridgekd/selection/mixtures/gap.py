"""DDK: more of the domains in which the student is far behind the reference model."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import softmax

from bridgekd.selection.mixture import GroupEvidence, Mixture


class GapOptions(BaseModel):
    """`alpha`: the part of the shares that follows the gap; the rest is divided evenly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(0.5, ge=0, le=1)


def update_shares(shares: np.ndarray, ratio: np.ndarray, alpha: float) -> np.ndarray:
    """Return r' = alpha psi / sum(psi) + (1 - alpha) / N with psi = r exp(ratio), [g].

    shares: r, [g]. ratio: the student's perplexity divided by the reference model's, [g]. DDK,
    arXiv 2407.16154, section 3. No share is below (1 - alpha) / N.
    >>> update_shares(np.array([0.5, 0.5]), np.array([1.0, 1.0]), 0.5).tolist()
    [0.5, 0.5]
    """
    psi = shares * np.exp(ratio - ratio.max())  # the factor cancels, and exp cannot overflow
    return np.asarray(alpha * psi / psi.sum() + (1 - alpha) / len(psi))


def weigh_by_gap(evidence: GroupEvidence, options: GapOptions) -> np.ndarray:
    """Return the shares after one update of r = softmax(ratio).

    A perplexity is exp of a group's mean loss. The paper updates while it trains, every 1,000
    steps, with losses on 500 texts of each domain. The loss of gold answers, and one update
    before each purchase or training, are our readings.
    """
    loss, reference = map(evidence.average, (evidence.losses, evidence.reference_losses))
    ratio = np.exp(np.clip(loss - reference, None, 100.0))[evidence.sizes > 0]
    weights = np.zeros(len(loss))
    weights[evidence.sizes > 0] = update_shares(softmax(ratio), ratio, options.alpha)
    return weights


MIXTURE = Mixture(
    name="gap",
    title="Gap to the assistant",
    summary="More of the groups in which the student's loss is far above the assistant's.",
    paper="DDK, arXiv 2407.16154",
    options=GapOptions,
    compute_weights=weigh_by_gap,
    needs_losses=True,
)
