"""Difficulty and embedding of questions, and the model's confidence in texts, from forward passes.

The one idea: rows end at the right edge, so the answers of a whole batch are its last few places,
and logits are computed for those alone; the last hidden states of the same pass, averaged over the
question's tokens, are the embedding. Batches hold rows of like length and a bounded number of
tokens, so that short questions go many at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.core.difficulty import option_entropy, option_margin
from bridgekd.core.prompts import (
    ANSWER_MARK,
    LETTERS,
    answer_prompt,
    explain_prompt,
    judge_prompt,
    render_question,
    shown_answer,
)
from bridgekd.errors import BadInput
from bridgekd.lm.batches import length_sorted, pad_left, positions
from bridgekd.lm.encode import prompt_ids, render_prompt, stop_ids, text_ids
from bridgekd.lm.generating import continue_ids
from bridgekd.lm.loading import LocalModel, accepted_arguments, plain_network
from bridgekd.progress import Progress, silent
from bridgekd.records import Example

Measure = Literal["loss", "entropy", "margin"]
Value = Literal["nll", "entropy", "margin"]  # what is averaged over a row's answer tokens
Floats = NDArray[np.float64]
Row32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """Of every example, in order: difficulty [n], higher = harder; the gold answer's tokens [n], 0
    where it was not looked at; embeddings [n, width] of length 1.
    """

    difficulty: Floats
    n_answer_tokens: NDArray[np.int64]
    embeddings: Row32


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt and a target as tokens: `question` marks prompt tokens, the last `n_answer` tokens
    are those that count."""

    ids: tuple[int, ...]
    question: tuple[bool, ...]
    n_answer: int


def score(
    local: LocalModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    measure: Measure | None = "loss",
    max_new_tokens: int = 32,
    progress: Progress = silent,
    label: str = "score",
) -> Scored:
    """Difficulty by `measure` (None: 0, for the embeddings alone) and embedding of every example.

    loss: d_i = -(1/T_y) sum_t log p(y_t | x, y_<t) in nats over the gold answer's own tokens; the
    mark before it and the end token do not count. entropy and margin need no gold answer: with
    options, of the renormalised, length-normalised option likelihoods
    (`core.difficulty.option_entropy`, `option_margin`); else of the model's greedy answer of at
    most `max_new_tokens`: the mean over its tokens of the entropy in nats, or of 1 - (p_1 - p_2).
    An embedding is the mean of the last hidden states over the question's tokens, L2-normalised:
    options included, the request behind them and the template not, but all prompt tokens where the
    tokenizer gives no offsets or the template alters the question. All: docs/methods.md.
    Raises BadInput for `loss` of an example without a gold answer.
    """
    prompts = [_prompt(local, example) for example in examples]
    if measure == "loss":
        rows = _gold_rows(local, examples, prompts)
        nll, embeddings = _passes(local, rows, "nll", batch_size, progress, label)
        return Scored(nll, np.array([row.n_answer for row in rows], dtype=np.int64), embeddings)
    greedy = measure is not None and not all(e.choices for e in examples)
    rows = _greedy_rows(local, examples, prompts, max_new_tokens if greedy else 0, batch_size)
    value: Value = "margin" if measure == "margin" else "entropy"
    difficulty, embeddings = _passes(local, rows, value, batch_size, progress, label)
    if measure is None:
        difficulty = np.zeros(len(rows))
    elif any(e.choices for e in examples):
        judge = option_entropy if measure == "entropy" else option_margin
        for i, likelihoods in _options(local, examples, prompts, batch_size, progress).items():
            difficulty[i] = judge(likelihoods)
    return Scored(difficulty, np.zeros(len(rows), dtype=np.int64), embeddings)


def confidence(
    local: LocalModel,
    pairs: Sequence[tuple[Example, str]],
    *,
    how: Literal["p_true", "likelihood"],
    batch_size: int,
    progress: Progress = silent,
    label: str = "weigh",
) -> Floats:
    """c_A(x, o) in [0, 1] of every (example, proposed text), signal 3 of TA-in-the-Loop
    (arXiv 2406.05322; both formulas are our reading): p_true is p(True) / (p(True) + p(False))
    after `judge_prompt`; likelihood is exp of the mean log-likelihood of the text's tokens after
    `explain_prompt`. An empty text has 0.
    """
    tokenizer = local.tokenizer
    if how == "likelihood":
        prompts = prompt_ids(tokenizer, [explain_prompt(e) for e, _ in pairs])
        texts = text_ids(tokenizer, [text for _, text in pairs])
        rows = [_plain(p, t) for p, t in zip(prompts, texts, strict=True)]
        nll, _ = _passes(local, rows, "nll", batch_size, progress, label)
        said = np.exp(-nll)
    else:
        prompts = prompt_ids(tokenizer, [judge_prompt(e, text) for e, text in pairs])
        words = text_ids(tokenizer, ["True", "False"])
        rows = [_plain(p, word) for p in prompts for word in words]
        nll, _ = _passes(local, rows, "nll", batch_size, progress, label)
        total = (nll * [len(word) for _ in prompts for word in words]).reshape(-1, 2)
        said = 1 / (1 + np.exp(np.clip(total[:, 0] - total[:, 1], -700, 700)))
    return np.where([bool(text.strip()) for _, text in pairs], said, 0.0)


def _passes(
    local: LocalModel,
    rows: Sequence[_Row],
    value: Value,
    batch_size: int,
    progress: Progress,
    label: str,
) -> tuple[Floats, Row32]:
    """The mean `value` over each row's answer tokens [n], 0 where there is none, and embeddings."""
    n = len(rows)
    values = np.zeros(n, dtype=np.float64)
    embeddings: list[Row32] = [np.zeros(0, dtype=np.float32)] * n
    n_done = 0
    was_training = local.model.training
    local.model.train(False)
    for batch in length_sorted([len(row.ids) for row in rows], batch_size):
        found, vectors = _forward(local, [rows[i] for i in batch], value)
        values[batch] = found.double().cpu().numpy()
        for i, vector in zip(batch, vectors.float().cpu().numpy(), strict=True):
            embeddings[i] = vector
        n_done += len(batch)
        progress(label, n_done, n)
    local.model.train(was_training)
    return values, np.stack(embeddings) if n else np.zeros((0, 0), dtype=np.float32)


@torch.inference_mode()
def _forward(local: LocalModel, rows: Sequence[_Row], value: Value) -> tuple[Tensor, Tensor]:
    """Mean value over answer tokens [n] and embeddings [n, width] of one batch."""
    model: Any = local.model
    # The last token predicts nothing that counts.
    ids, mask = pad_left(
        [row.ids[:-1] for row in rows], int(local.tokenizer.pad_token_id), local.device
    )
    n_last = max(1, *(row.n_answer for row in rows))
    extra = accepted_arguments(model, logits_to_keep=n_last, position_ids=positions(mask))
    hidden: list[Tensor] = []
    decoder = plain_network(model).get_decoder()
    hook = decoder.register_forward_hook(lambda _module, _args, out: hidden.append(out[0]))
    try:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
    finally:
        hook.remove()
    values = _mean_values(logits[:, -n_last:].float(), rows, value)
    width = ids.shape[1]
    question = torch.zeros((len(rows), width, 1), device=local.device)
    for i, row in enumerate(rows):
        start = width - len(row.ids) + 1
        question[i, start : start + len(row.question), 0] = torch.tensor(row.question).float()
    mean = (hidden[0].float() * question).sum(1) / question.sum(1).clamp(min=1)
    return values, F.normalize(mean, dim=-1)


def _mean_values(logits: Tensor, rows: Sequence[_Row], value: Value) -> Tensor:
    """Mean value [n] over each row's last `n_answer` tokens; logits [n, last, vocabulary]."""
    n_last = logits.shape[1]
    targets = torch.zeros((len(rows), n_last), dtype=torch.long)
    weights = torch.zeros((len(rows), n_last), dtype=torch.float64)
    for i, row in enumerate(rows):
        if row.n_answer:
            targets[i, n_last - row.n_answer :] = torch.tensor(row.ids[-row.n_answer :])
            weights[i, n_last - row.n_answer :] = 1 / row.n_answer
    targets, weights = targets.to(logits.device), weights.to(logits.device)
    return (_token_values(logits, targets, value).double() * weights).sum(1)


def _token_values(logits: Tensor, targets: Tensor, value: Value) -> Tensor:
    """[n, last]: the NLL of `targets`, or the entropy or 1 - (p_1 - p_2) of what is predicted."""
    if value == "nll":
        return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    log_p = torch.log_softmax(logits, -1)
    if value == "entropy":
        return -(log_p.exp() * log_p).sum(-1)
    first, second = log_p.exp().topk(2, dim=-1).values.unbind(-1)
    return 1 - (first - second)


def _gold_rows(
    local: LocalModel, examples: Sequence[Example], prompts: Sequence["_Asked"]
) -> list[_Row]:
    for example in examples:
        if not example.answer:
            raise BadInput(f"example {example.id} has no gold answer, so its loss cannot be scored")
    rows = _answer_rows(local, prompts, [shown_answer(e) for e in examples])
    for example, row in zip(examples, rows, strict=True):
        if not row.n_answer:
            raise BadInput(
                f"the gold answer {example.answer!r} of example {example.id} has no tokens"
            )
    return rows


def _answer_rows(
    local: LocalModel, prompts: Sequence["_Asked"], answers: Sequence[str]
) -> list[_Row]:
    """Prompts with the mark and an answer behind; the answer's own tokens count."""
    targets = text_ids(local.tokenizer, [f"{ANSWER_MARK} {answer}" for answer in answers])
    # The mark's tokens, with and without the space that some tokenizers keep apart.
    mark = text_ids(local.tokenizer, [f"{ANSWER_MARK} "])[0]
    rows = []
    for (ids, question), target in zip(prompts, targets, strict=True):
        pairs = zip(mark, target, strict=False)
        n_mark = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(mark), len(target)))
        rows.append(_Row((*ids, *target), question, len(target) - n_mark))
    return rows


def _greedy_rows(
    local: LocalModel,
    examples: Sequence[Example],
    prompts: Sequence["_Asked"],
    max_new_tokens: int,
    batch_size: int,
) -> list[_Row]:
    """Prompts with the mark and the model's own greedy answer behind; where options are given, or
    nothing may be written, with the mark alone.
    """
    mark = text_ids(local.tokenizer, [ANSWER_MARK])[0]
    asked = [(*ids, *mark) for ids, _ in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    open_ones = [i for i, e in enumerate(examples) if max_new_tokens and not e.choices]
    stop = stop_ids(local.tokenizer, local.model)
    lengths = [len(asked[i]) for i in open_ones]
    for batch in length_sorted(lengths, batch_size):
        places = [open_ones[k] for k in batch]
        written = continue_ids(local, [asked[i] for i in places], max_new_tokens, stop)
        for i, answer in zip(places, written, strict=True):
            answers[i] = answer
    return [
        _Row((*ids, *answer), question, len(answer))
        for ids, (_, question), answer in zip(asked, prompts, answers, strict=True)
    ]


def _options(
    local: LocalModel,
    examples: Sequence[Example],
    prompts: Sequence["_Asked"],
    batch_size: int,
    progress: Progress,
) -> dict[int, Floats]:
    """Mean log-likelihood a token of every option, by the row number of each example with some."""
    places = [(i, k) for i, e in enumerate(examples) for k in range(len(e.choices))]
    shown = [f"({LETTERS[k]}) {examples[i].choices[k]}" for i, k in places]
    rows = _answer_rows(local, [prompts[i] for i, _ in places], shown)
    nll, _ = _passes(local, rows, "nll", batch_size, progress, "score options")
    found: dict[int, list[float]] = {}
    for (i, _), value in zip(places, nll, strict=True):
        found.setdefault(i, []).append(-value)
    return {i: np.array(values) for i, values in found.items()}


def _plain(prompt: Sequence[int], target: Sequence[int]) -> _Row:
    """A prompt and a target that counts as a whole."""
    return _Row((*prompt, *target), (True,) * len(prompt), len(target))


_Asked = tuple[list[int], tuple[bool, ...]]


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
