"""The reference model of an objective: a frozen model that reads the same targets.

It reads its own prompt, with its own chat template, and then the tokens of the target. So both
models must split a target into the same tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bridgekd.lm.forward import compute_states_at
from bridgekd.lm.load import LocalModel, get_max_positions, load_model
from bridgekd.lm.shared_vocabulary import check_same_tokens, find_shared_ids
from bridgekd.lm.tokenization import (
    TokenizedSequence,
    find_turn_end_id,
    tokenize_prompts,
    truncate_prompt,
)
from bridgekd.lm.training_job import ReferenceSpec
from bridgekd.lm.update_schedule import MicroBatch
from bridgekd.recipe import Precision
from bridgekd.records import TrainingSequence


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A loaded reference model.

    prompts: its tokens of each row's prompt. n_shared: the tokens with an id below it that both
    models know; `shared_ids` lists them if they are not all. other_end: the token that ends a turn
    of the trained model alone, or None.
    """

    local: LocalModel
    prompts: Sequence[Sequence[int]]
    n_shared: int
    shared_ids: Tensor | None = None
    other_end: int | None = None

    def convert_row(self, index: int, row: TokenizedSequence) -> TokenizedSequence:
        """Return row `index`, which may have a sampled target, with the prompt of this model."""
        prompt = tuple(self.prompts[index])
        weights = (0.0,) * len(prompt) + row.weights[row.n_prompt :]
        ids = prompt + row.ids[row.n_prompt :]
        converted = replace(row, ids=ids, weights=weights, n_prompt=len(prompt))
        limit = get_max_positions(self.local) or len(converted.ids)
        if len(converted.ids) <= limit:
            return converted
        return truncate_prompt(converted, limit, self.local.tokenizer.bos_token_id) or converted

    @torch.no_grad()
    def read_tokens(self, batch: MicroBatch) -> Callable[[slice], Tensor]:
        """Return the function from a chunk of the m targets to their logits [k, n_shared]."""
        arguments = batch.forward_arguments
        _, states, head = compute_states_at(self.local.model, batch.positions, arguments)

        @torch.no_grad()
        def compute_logits(chunk: slice) -> Tensor:
            logits = head.compute_logits(states[chunk])
            return (
                logits[:, : self.n_shared]
                if self.shared_ids is None
                else logits[:, self.shared_ids]
            )

        return compute_logits

    def list_shared_ids(self) -> frozenset[int]:
        """Return the tokens that both models know."""
        if self.shared_ids is None:
            return frozenset(range(self.n_shared))
        return frozenset(self.shared_ids.tolist())

    def mask_targets(self, targets: Tensor) -> Tensor | None:
        """Return 0 for targets [m] that this model writes otherwise, else 1; None if all are 1."""
        return None if self.other_end is None else (targets != self.other_end).float()


def load_reference(
    spec: ReferenceSpec,
    trained: LocalModel,
    rows: Sequence[TrainingSequence],
    precision: Precision,
    objective: str,
) -> ReferenceModel:
    """Return the model on the device of the trained one, with its prompts of all rows.

    Raises InputError if a target has other tokens in this model. The token that ends a turn may
    differ: such a target has no reference.
    """
    local = load_model(
        spec.model, device=trained.device, revision=spec.revision, precision=precision
    )
    ours, theirs = trained.tokenizer, local.tokenizer
    check_same_tokens(ours, theirs, [span.text for row in rows for span in row.spans], objective)
    shared = find_shared_ids(ours, theirs)
    is_prefix = shared == list(range(len(shared)))
    ends = [find_turn_end_id(tokenizer) for tokenizer in (ours, theirs)]
    return ReferenceModel(
        local,
        tokenize_prompts(theirs, [row.reference_prompt or row.prompt for row in rows]),
        len(shared),
        None if is_prefix else torch.tensor(shared, device=trained.device),
        None if ends[0] == ends[1] and ends[0] in shared else ends[0],
    )
