"""The training objective as pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_nll(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of w * NLL, sum of w) over all tokens, both float32 scalars.

    logits [..., vocabulary] predict labels [...] at the same place (shift before calling); weights
    [...] are 0 for prompt and padding. Dividing the sums over a whole effective batch gives
    L = NLL(r|x) + lambda * NLL(y|x, r) of BRIDGE (arXiv 2512.20403; docs/methods.md, train A) with
    weight 1 on the rationale's tokens and lambda on the answer's; that the two parts share one
    normaliser, the sum of weights, is our reading.
    """
    counted = weights > 0
    picked = weights[counted].float()
    nll = F.cross_entropy(logits[counted].float(), labels[counted], reduction="none")
    return torch.dot(nll, picked), picked.sum()
