"""The loss on rows that are not used for training."""

from collections.abc import Sequence

import torch

from bridgekd.errors import InputError
from bridgekd.lm.forward import compute_at_positions, eval_mode, token_nll
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.lm.update_schedule import pad_batch
from bridgekd.records import TrainingSequence


@torch.no_grad()
def compute_eval_loss(
    local: LocalModel, rows: Sequence[TrainingSequence], max_length: int
) -> float:
    """Return the weighted mean NLL per token in nats over all rows of at most `max_length` tokens.

    Raises InputError if all rows are longer.
    """
    tokenized = [r for r in tokenize_sequences(local.tokenizer, rows) if len(r.ids) <= max_length]
    if not tokenized:
        raise InputError(
            f"None of the {len(rows)} held-out rows has at most {max_length} tokens, so there is "
            "no evaluation loss. Raise max_length or remove holdout_size."
        )
    total = weight = 0.0

    def run(batch: list[int]) -> None:
        nonlocal total, weight
        pad_id = int(local.tokenizer.pad_token_id)
        b = pad_batch([tokenized[i] for i in batch], pad_id, local.device)
        assert b.mask is not None, "padded rows have a mask"
        _, nll = compute_at_positions(local, b.ids, b.mask, b.positions, b.targets, token_nll)
        total += float(torch.dot(nll, b.weights))
        weight += float(b.weights.sum())

    with eval_mode(local.model):
        run_scoring(local, [len(row.ids) for row in tokenized], None, run)
    return total / weight if weight else 0.0
