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


def weighted_kl(
    logits: Tensor, reference: Tensor, weights: Tensor, *, temperature: float
) -> Tensor:
    """Sum of w * KL(reference || model) over all tokens, both softened by `temperature`; a float32
    scalar that belongs beside `weighted_nll`.

    logits and reference [..., vocabulary] are at the same places, weights [...]. Gradients go to
    `logits`. Without the factor temperature^2 of Hinton et al. 2015 (arXiv 1503.02531): a reading.
    """
    counted = weights > 0
    ours = F.log_softmax(logits[counted].float() / temperature, dim=-1)
    theirs = F.log_softmax(reference[counted].float() / temperature, dim=-1)
    each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
    return torch.dot(each, weights[counted].float())
