"""The reference model of an objective: a frozen model that reads the same tokens.

It must have the vocabulary of the trained model. If it does not, the training falls back to the
negative log-likelihood, and its log reports it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bridgekd.lm.forward import compute_states_at
from bridgekd.lm.load import LocalModel, load_model
from bridgekd.lm.training_job import ReferenceSpec
from bridgekd.recipe import Precision


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A loaded reference model, and the number of tokens in the shared vocabulary."""

    local: LocalModel
    n_shared: int

    @torch.no_grad()
    def read_tokens(
        self, positions: Tensor, arguments: Mapping[str, object]
    ) -> Callable[[slice], Tensor]:
        """Return the function from a chunk of the m positions to its logits [k, n_shared].

        The positions are those of a forward pass with `arguments`.
        """
        _, states, head = compute_states_at(self.local.model, positions, arguments)

        @torch.no_grad()
        def compute_logits(chunk: slice) -> Tensor:
            return head.compute_logits(states[chunk])[:, : self.n_shared]

        return compute_logits


def load_reference(
    spec: ReferenceSpec, trained: LocalModel, precision: Precision
) -> ReferenceModel | None:
    """Return the model on the device of the trained one; None if their vocabularies differ."""
    local = load_model(
        spec.model, device=trained.device, revision=spec.revision, precision=precision
    )
    if local.tokenizer.get_vocab() != trained.tokenizer.get_vocab():
        return None
    return ReferenceModel(local, len(trained.tokenizer))
