"""The domain mixture as a variant: the share of each domain or cluster, and what it follows from.

The one idea: who needs more of a group, and how the picks are made, are two questions. A mixture
answers the first one for every user: the quotas of a selection and the rows of the student.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel

from bridgekd.rng import make_rng
from bridgekd.selection.quotas import allocate_quotas

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class GroupEvidence:
    """What a mixture may know of n questions in groups.

    groups: [n] integers from 0; numbers may be missing. progress: the fraction of the budget that
    is spent, in [0, 1). pass_rates: [n] in [0, 1], of the untouched assistant for a selection, of
    the student for its rows. losses, reference_losses: [n] in nats, the mean loss of the gold
    answer's tokens for the student and for the warm assistant. A column that the mixture does not
    need is None.
    """

    groups: np.ndarray
    progress: float = 0.0
    pass_rates: np.ndarray | None = None
    losses: np.ndarray | None = None
    reference_losses: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """The number of questions in each group, [g]."""
        return np.bincount(self.groups)

    def average(self, values: np.ndarray | None) -> np.ndarray:
        """Return the mean of `values` [n] in each group, [g]; 0 for a group without questions."""
        assert values is not None, "a mixture declares the columns that it needs"
        total = np.bincount(self.groups, weights=values)
        return np.asarray(total / np.maximum(1, self.sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Generic[OptionsT]):
    """The share of each group; `compute_weights(evidence, options)` returns [g], at least 0.

    A share is a weight divided by the sum of the weights. Groups without questions get nothing,
    and if no group with questions has a weight, the shares are those of the pool.

    count_samples: the rationales of each question that `pass_rates` needs; 0: it needs none.
    needs_losses: whether it needs `losses` and `reference_losses`.
    """

    name: str
    title: str
    summary: str
    paper: str = ""
    options: type[OptionsT]
    compute_weights: Callable[[GroupEvidence, OptionsT], np.ndarray]
    count_samples: Callable[[OptionsT], int] = lambda options: 0
    needs_losses: bool = False


def compute_shares(mixture: Mixture[Any], evidence: GroupEvidence, options: Any) -> np.ndarray:
    """Return the share of each group by the mixture, [g]; the sum is 1."""
    sizes = evidence.sizes
    weights = np.where(sizes > 0, mixture.compute_weights(evidence, options), 0.0)
    weights = weights if weights.sum() > 0 else sizes
    return np.asarray(weights / max(1e-300, weights.sum()))


def resample_rows(groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return n rows, ascending, in which each group has its share of the n.

    groups: [n] integers from 0. shares: [g]; those of groups without rows go to the others. In each
    group all rows appear equally often, except that some, drawn by the seed, appear once more.
    >>> resample_rows(np.array([0, 0, 0, 1]), np.array([0.5, 0.5]), 0).tolist()[-2:]
    [3, 3]
    """
    n, sizes = len(groups), np.bincount(groups, minlength=len(shares))
    counts = allocate_quotas(np.where(sizes > 0, n, 0), n, shares)
    rng, drawn = make_rng(seed, "mixture"), []
    for group in np.flatnonzero(counts):
        members = rng.permutation(np.flatnonzero(groups == group))
        drawn.append(np.resize(members, counts[group]))
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)
