"""Log-probabilities of training targets for a reference model, computed once for all trainings."""

from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.forward import ScoringRow, compute_scored_values, eval_mode, token_nll
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.reference_model import fit_row, tokenize_reference_rows
from bridgekd.lm.token_bytes import compute_byte_ends
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import TargetLogprobs, TrainingSequence


def score_targets(
    local: LocalModel,
    sequences: Sequence[TrainingSequence],
    *,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "score targets",
    known: Mapping[int, Sequence[float]] | None = None,
    on_batch: Callable[[list[int], list[list[float]]], None] | None = None,
) -> list[TargetLogprobs]:
    """Return the log-probability of each token of each target, and the byte where it ends.

    The model reads its own prompt, or the reference prompt of the sequence, then the target in its
    own tokens and the token that ends it. A prompt that is too long loses its start. `known` has
    the log-probabilities of an earlier, stopped call by row; `on_batch(rows, log-probabilities)` is
    called after each batch. A batch that is fully known is not computed again, so a call that was
    stopped returns the same numbers.
    """
    rows = build_target_rows(
        [fit_row(local, row) for row in tokenize_reference_rows(local.tokenizer, sequences)]
    )
    logprobs = dict(known or {})
    n_done = 0

    def run(batch: list[int]) -> None:
        nonlocal n_done
        if not all(i in logprobs for i in batch):
            _, nll = compute_scored_values(local, [rows[i] for i in batch], token_nll)
            parts = torch.split(-nll.double().cpu(), [rows[i].n_scored for i in batch])
            new = [part.tolist() for part in parts]
            logprobs.update(zip(batch, new, strict=True))
            if on_batch is not None:
                on_batch(batch, new)
        n_done += len(batch)
        progress(label, n_done, len(rows))

    with eval_mode(local.model):
        run_scoring(local, [len(row.ids) for row in rows], batch_size, run)
    return join_logprobs(local.tokenizer, sequences, [logprobs[i] for i in range(len(rows))])


def build_target_rows(rows: Sequence[TokenizedSequence]) -> list[ScoringRow]:
    """Return the rows with all tokens of the target to score."""
    return [
        ScoringRow(row.ids, (True,) * row.n_prompt, len(row.ids) - row.n_prompt) for row in rows
    ]


def join_logprobs(
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[TrainingSequence],
    logprobs: Sequence[Sequence[float]],
) -> list[TargetLogprobs]:
    """Return the log-probabilities of each sequence with the ends of its tokens."""
    ends = compute_byte_ends(tokenizer, sequences)
    return [
        TargetLogprobs(sequence.id, sequence.key, end, tuple(values))
        for sequence, end, values in zip(sequences, ends, logprobs, strict=True)
    ]
