"""The loss of a micro-batch and its gradients, with the logits of one chunk in memory at a time.

The gradients of a chunk are computed together with its loss, in the forward pass, because its
logits are not kept. So nothing is computed twice. The gradients equal those of all logits at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridgekd.lm.forward import MAX_LOGITS, Head, count_chunk_tokens, split_tokens
from bridgekd.lm.objectives import Objective

N_REFERENCE_COPIES = 3  # of the logits that an objective with a reference model needs, to 1 without
ChunkLoss = Callable[[Tensor, slice], Tensor]  # (logits [k, vocabulary], chunk) -> sum of losses


def compute_chunked_loss(
    head: Head, states: Tensor, chunks: Sequence[slice], compute_loss: ChunkLoss
) -> Tensor:
    """Return the sum of `compute_loss` over all chunks of the hidden states [m, hidden].

    Gradients go to the states and to the weights of the head.
    """
    function: Any = _ChunkedLoss
    total: Tensor = function.apply(head, chunks, compute_loss, states, *head.list_parameters())
    return total


def split_targets(
    objective: Objective, unit_ids: Tensor, model: Any, *, max_logits: int = MAX_LOGITS
) -> list[slice]:
    """Return the chunks of the m target tokens whose logits are in memory at one time.

    An objective whose loss is no sum over tokens gets complete units: sequences, or segments of
    them. So one unit may have more than `max_logits` logits.
    """
    n_copies = N_REFERENCE_COPIES if objective.needs_reference_model else 1
    max_tokens = count_chunk_tokens(model, max_logits // n_copies)
    if objective.is_sum_over_tokens:
        return split_tokens(len(unit_ids), max_tokens)
    ends = np.cumsum(np.unique(unit_ids.cpu().numpy(), return_counts=True)[1]).tolist()
    chunks, start, last = [], 0, 0
    for end in ends:
        if end - start > max_tokens and last > start:
            chunks.append(slice(start, last))
            start = last
        last = end
    return [*chunks, slice(start, last)]


class _ChunkedLoss(torch.autograd.Function):
    """The sum of the chunks' losses. It computes its gradients in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        chunks: Sequence[slice],
        compute_loss: ChunkLoss,
        states: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        state_grads = torch.zeros_like(states)
        grads: list[Tensor | None] = [None] * len(parameters)
        for chunk in chunks:
            with torch.enable_grad():
                part = states[chunk].detach().requires_grad_()
                loss = compute_loss(head.compute_logits(part), chunk)
                new = torch.autograd.grad(loss, [part, *parameters], allow_unused=True)
            if new[0] is not None:
                state_grads[chunk] = new[0]
            grads = [
                g if old is None else old if g is None else old.add_(g)
                for old, g in zip(grads, new[1:], strict=True)
            ]
            total += loss.detach()
        ctx.grads = [state_grads, *grads]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> Any:
        (scale,) = outputs
        grads, ctx.grads = ctx.grads, None
        return None, None, None, *(None if g is None else g.mul_(scale) for g in grads)
