"""Difficulty and embedding of labelled questions from one forward pass each.

The one idea: rows end at the right edge, so the answers of a whole batch are its last few places,
and logits are computed for those alone; the last hidden states of the same pass, averaged over the
question's tokens, are the embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.core.prompts import ANSWER_MARK, answer_prompt, render_question, shown_answer
from bridgekd.errors import BadInput
from bridgekd.lm.batches import length_sorted, pad_left, positions
from bridgekd.lm.encode import render_prompt, text_ids
from bridgekd.lm.loading import LocalModel, accepted_arguments, plain_network
from bridgekd.progress import Progress, silent
from bridgekd.records import Example


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt and its gold target as tokens: `question` marks prompt tokens, the last `n_answer`
    tokens are the answer's own."""

    ids: tuple[int, ...]
    question: tuple[bool, ...]
    n_answer: int


def score(
    local: LocalModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    progress: Progress = silent,
    label: str = "score",
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float32]]:
    """(nll [n], n_answer_tokens [n], embeddings [n, width]), in the order of the examples.

    nll is d_i = -(1/T_y) sum_t log p(y_t | x, y_<t) in nats, over the gold answer's own tokens; the
    mark before it and the end token do not count. An embedding is the mean of the last hidden
    states over the question's tokens, L2-normalised: options included, the request behind them and
    the template not, but all prompt tokens where the tokenizer gives no offsets or the template
    alters the question. Both: docs/methods.md.
    Raises BadInput for an example without a gold answer.
    """
    rows = _rows(local, examples)
    n = len(rows)
    nll = np.zeros(n, dtype=np.float64)
    embeddings: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * n
    n_done = 0
    was_training = local.model.training
    local.model.train(False)
    for batch in length_sorted([len(row.ids) for row in rows], batch_size):
        losses, vectors = _forward(local, [rows[i] for i in batch])
        nll[batch] = losses.double().cpu().numpy()
        for i, vector in zip(batch, vectors.float().cpu().numpy(), strict=True):
            embeddings[i] = vector
        n_done += len(batch)
        progress(label, n_done, n)
    local.model.train(was_training)
    n_answer = np.array([row.n_answer for row in rows], dtype=np.int64)
    return nll, n_answer, np.stack(embeddings) if n else np.zeros((0, 0), dtype=np.float32)


@torch.inference_mode()
def _forward(local: LocalModel, rows: Sequence[_Row]) -> tuple[Tensor, Tensor]:
    """Mean answer NLL [n] and embeddings [n, width] of one batch."""
    model: Any = local.model
    # The last token predicts nothing that counts.
    ids, mask = pad_left(
        [row.ids[:-1] for row in rows], int(local.tokenizer.pad_token_id), local.device
    )
    n_last = max(row.n_answer for row in rows)
    extra = accepted_arguments(model, logits_to_keep=n_last, position_ids=positions(mask))
    hidden: list[Tensor] = []
    decoder = plain_network(model).get_decoder()
    hook = decoder.register_forward_hook(lambda _module, _args, out: hidden.append(out[0]))
    try:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
    finally:
        hook.remove()
    losses = _answer_nll(logits[:, -n_last:], rows)
    width = ids.shape[1]
    question = torch.zeros((len(rows), width, 1), device=local.device)
    for i, row in enumerate(rows):
        start = width - len(row.ids) + 1
        question[i, start : start + len(row.question), 0] = torch.tensor(row.question).float()
    mean = (hidden[0].float() * question).sum(1) / question.sum(1).clamp(min=1)
    return losses, F.normalize(mean, dim=-1)


def _answer_nll(logits: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Mean NLL [n] over each row's last `n_answer` tokens; logits [n, last, vocabulary]."""
    n_last = logits.shape[1]
    targets = torch.zeros((len(rows), n_last), dtype=torch.long)
    weights = torch.zeros((len(rows), n_last), dtype=torch.float64)
    for i, row in enumerate(rows):
        targets[i, n_last - row.n_answer :] = torch.tensor(row.ids[-row.n_answer :])
        weights[i, n_last - row.n_answer :] = 1 / row.n_answer
    targets, weights = targets.to(logits.device), weights.to(logits.device)
    nll = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
    return (nll.double() * weights).sum(1)


def _rows(local: LocalModel, examples: Sequence[Example]) -> list[_Row]:
    tokenizer = local.tokenizer
    for example in examples:
        if not example.answer:
            raise BadInput(f"example {example.id} has no gold answer, so its loss cannot be scored")
    prompts = [_prompt(local, example) for example in examples]
    targets = text_ids(tokenizer, [f"{ANSWER_MARK} {shown_answer(e)}" for e in examples])
    # The mark's tokens, with and without the space that some tokenizers keep apart.
    mark = text_ids(tokenizer, [f"{ANSWER_MARK} "])[0]
    rows = []
    for example, (ids, question), target in zip(examples, prompts, targets, strict=True):
        pairs = zip(mark, target, strict=False)
        n_mark = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(mark), len(target)))
        if n_mark == len(target):
            raise BadInput(
                f"the gold answer {example.answer!r} of example {example.id} has no tokens"
            )
        rows.append(_Row((*ids, *target), question, len(target) - n_mark))
    return rows


def _prompt(local: LocalModel, example: Example) -> tuple[list[int], tuple[bool, ...]]:
    """The answer prompt's tokens, and which of them are the question's."""
    tokenizer = local.tokenizer
    text = render_prompt(tokenizer, answer_prompt(example))
    question = render_question(example)
    encoding = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    ids: list[int] = encoding["input_ids"]
    start = text.find(question)
    if not tokenizer.is_fast or start < 0:
        return ids, (True,) * len(ids)
    end = start + len(question)
    marks = tuple(a < end and b > start and a < b for a, b in encoding["offset_mapping"])
    return ids, marks if any(marks) else (True,) * len(ids)
