"""The training objective on rows that are not trained on."""

from collections.abc import Sequence

import torch

from bridgekd.errors import InputError
from bridgekd.lm.forward import compute_logits_at, eval_mode
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.objectives import TokenBatch
from bridgekd.lm.objectives.nll import compute_nll
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.lm.update_schedule import pad_batch
from bridgekd.records import TrainingSequence


@torch.no_grad()
def compute_eval_loss(
    local: LocalModel, rows: Sequence[TrainingSequence], max_length: int
) -> float:
    """Weighted NLL in nats per unit of weight over all rows of at most `max_length` tokens.
    InputError where no row is that short.
    """
    encoded = [r for r in tokenize_sequences(local.tokenizer, rows) if len(r.ids) <= max_length]
    if not encoded:
        raise InputError(
            f"none of the {len(rows)} rows held out has at most {max_length} tokens, so nothing "
            "could be judged by them; raise max_length or leave held_out out"
        )
    total = weight = 0.0

    def run(batch: list[int]) -> None:
        nonlocal total, weight
        some = [encoded[i] for i in batch]
        b = pad_batch(some, int(local.tokenizer.pad_token_id), local.device)
        arguments = {"input_ids": b.ids, "attention_mask": b.mask, "use_cache": False}
        logits = compute_logits_at(local.model, local.model, b.places, arguments)
        total += float(compute_nll(TokenBatch(logits, b.targets, b.weights, b.sequence_ids)))
        weight += float(b.weights.sum())

    with eval_mode(local.model):
        run_scoring(local, [len(row.ids) for row in encoded], None, run)
    return total / weight if weight else 0.0
