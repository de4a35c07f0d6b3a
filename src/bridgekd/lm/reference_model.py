"""The reference model of an objective: a frozen model that reads the same targets.

It reads its own prompt, with its own chat template, and then the target: the tokens of the trained
model, if both models must have the same ones, or its own. Then the objective matches the tokens of
both models in segments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.forward import compute_states_at
from bridgekd.lm.load import LocalModel, get_max_positions, load_model
from bridgekd.lm.segments import MatchTokens, number_tokens
from bridgekd.lm.shared_vocabulary import check_same_tokens, find_shared_ids
from bridgekd.lm.token_bytes import compute_byte_ends
from bridgekd.lm.tokenization import (
    TokenizedSequence,
    find_turn_end_id,
    tokenize_prompts,
    tokenize_sequences,
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
    of the trained model alone, or None. own_rows: the rows in its own tokens, with the segments of
    the trained model's rows; () if both have the same tokens.
    """

    local: LocalModel
    prompts: Sequence[Sequence[int]] = ()
    n_shared: int | None = None
    shared_ids: Tensor | None = None
    other_end: int | None = None
    own_rows: Sequence[TokenizedSequence] = ()

    def convert_row(self, index: int, row: TokenizedSequence) -> TokenizedSequence:
        """Return row `index`, which may have a sampled target, as this model reads it."""
        if self.own_rows:
            return self.own_rows[index]
        prompt = tuple(self.prompts[index])
        weights = (0.0,) * len(prompt) + row.weights[row.n_prompt :]
        ids = prompt + row.ids[row.n_prompt :]
        converted = replace(row, ids=ids, weights=weights, n_prompt=len(prompt))
        return fit_row(self.local, converted)

    @torch.no_grad()
    def read_tokens(
        self, batch: MicroBatch, own: MicroBatch
    ) -> tuple[Callable[[slice], Tensor], Tensor | None]:
        """Return the function from a chunk of the m targets of a batch to their logits
        [k, n_shared], and the mask [m]: 0 for targets without logits of this model; None if all are
        1. own: the batch as this model reads it. Of a segment the first token has logits.
        """
        mask = self.mask_targets(batch.targets)
        positions = own.positions
        if self.own_rows:
            index = torch.searchsorted(own.segment_ids, batch.segment_ids)
            index = index.clamp(max=len(own.segment_ids) - 1)
            mask = (own.segment_ids[index] == batch.segment_ids).float()
            positions = positions[index]
        _, states, head = compute_states_at(self.local.model, positions, own.forward_arguments)

        @torch.no_grad()
        def compute_logits(chunk: slice) -> Tensor:
            logits = head.compute_logits(states[chunk])
            return (
                logits[:, : self.n_shared]
                if self.shared_ids is None
                else logits[:, self.shared_ids]
            )

        return compute_logits, mask

    def list_shared_ids(self) -> frozenset[int] | None:
        """Return the tokens that both models know; None if they need not be the same."""
        if self.n_shared is None:
            return None
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
    local = _load_beside(spec, trained, precision)
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


def load_aligned_reference(
    spec: ReferenceSpec,
    trained: LocalModel,
    sequences: Sequence[TrainingSequence],
    rows: Sequence[TokenizedSequence],
    precision: Precision,
    match_tokens: MatchTokens,
) -> tuple[ReferenceModel, list[TokenizedSequence]]:
    """Return the model, which reads the sequences in its own tokens, and `rows`, the sequences in
    the tokens of the trained model, with the segments of both.
    """
    local = _load_beside(spec, trained, precision)
    own_rows = tokenize_reference_rows(local.tokenizer, sequences)
    sides = (compute_byte_ends(t, sequences) for t in (trained.tokenizer, local.tokenizer))
    ours, theirs = [], []
    for row, own, *ends in zip(rows, own_rows, *sides, strict=True):
        spans = zip(*match_tokens(*ends), strict=True)
        numbers = [number_tokens(s, len(e)) for s, e in zip(spans, ends, strict=True)]
        ours.append(_set_segments(row, numbers[0]))
        theirs.append(fit_row(local, replace(own, segments=numbers[1])))
    return ReferenceModel(local, own_rows=theirs), ours


def attach_logprobs(
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[TrainingSequence],
    rows: Sequence[TokenizedSequence],
    match_tokens: MatchTokens,
) -> list[TokenizedSequence]:
    """Return `rows`, the sequences in tokens, with their segments and the log-probabilities that a
    reference model gave these.
    """
    attached = []
    for sequence, row, ends in zip(
        sequences, rows, compute_byte_ends(tokenizer, sequences), strict=True
    ):
        known = sequence.target_logprobs
        assert known is not None, "sequences have log-probabilities"
        segments = match_tokens(ends, known.ends)
        numbers = number_tokens([ours for ours, _ in segments], len(ends))
        sums = [sum(known.logprobs[theirs]) for _, theirs in segments]
        row = _set_segments(row, numbers)
        logprobs = tuple(sums[number] for number in row.segments)
        attached.append(replace(row, reference_logprobs=logprobs))
    return attached


def _set_segments(row: TokenizedSequence, numbers: tuple[int, ...]) -> TokenizedSequence:
    """Return the row with the segments of its target tokens, the first of the complete target.

    A segment that has a loss on some of its tokens only, or is cut off, has none.
    """
    segments = numbers[: len(row.ids) - row.n_prompt]
    targets = list(zip(segments, row.weights[row.n_prompt :], strict=True))
    partial = {number for number, weight in targets if not weight} | {*numbers[len(segments) :]}
    weights = [0.0 if number in partial else weight for number, weight in targets]
    return replace(row, segments=segments, weights=(*row.weights[: row.n_prompt], *weights))


def tokenize_reference_rows(
    tokenizer: PreTrainedTokenizerBase, sequences: Sequence[TrainingSequence]
) -> list[TokenizedSequence]:
    """Return the sequences in the tokens of a reference model: the prompt that it reads, and the
    complete target.
    """
    complete = [
        replace(s, prompt=s.reference_prompt or s.prompt, loss_start=0, loss_end=None)
        for s in sequences
    ]
    return tokenize_sequences(tokenizer, complete)


def fit_row(local: LocalModel, row: TokenizedSequence) -> TokenizedSequence:
    """Return the row without the start of a prompt that is too long for the model."""
    limit = get_max_positions(local) or len(row.ids)
    if len(row.ids) <= limit:
        return row
    return truncate_prompt(row, limit, local.tokenizer.bos_token_id) or row


def _load_beside(spec: ReferenceSpec, trained: LocalModel, precision: Precision) -> LocalModel:
    return load_model(
        spec.model, device=trained.device, revision=spec.revision, precision=precision
    )
