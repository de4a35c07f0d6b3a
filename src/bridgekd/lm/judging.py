"""How sure a model is of a text that was written for a question, as a number in [0, 1]."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.core.prompts import JUDGEMENTS, explain_prompt, judge_prompt
from bridgekd.lm.batches import token_bounded
from bridgekd.lm.encode import prompt_ids, text_ids
from bridgekd.lm.forward import Row, evaluating, nll, row_means
from bridgekd.lm.loading import LocalModel
from bridgekd.lm.questions import Reader
from bridgekd.progress import Progress, silent
from bridgekd.records import Example

How = Literal["p_true", "likelihood"]


def confidence(
    local: LocalModel,
    pairs: Sequence[tuple[Example, str]],
    *,
    how: How,
    batch_size: int,
    progress: Progress = silent,
    label: str = "judge",
) -> NDArray[np.float64]:
    """The model's confidence c_A(x, o) in each text o, an answer or a whole rationale; [n] in
    [0, 1], in the order of the pairs.

    p_true: P("True") / (P("True") + P("False")) behind `judge_prompt`. That an assistant's
    confidence filters is stated (arXiv 2406.05322), this form is a reading; it is P(True) of
    Kadavath et al. 2022 (arXiv 2207.05221). The probabilities are those of the two first tokens,
    or where these are the same those of the two words.

    likelihood: exp((1/T) sum_t log p(o_t | x, o_<t)) behind `explain_prompt`, a reading; the mark
    and the answer count, the end token does not.

    A text of nothing but blanks has confidence 0.
    """
    sure = np.zeros(len(pairs), dtype=np.float64)
    said = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    rate = {"p_true": _p_true, "likelihood": _likelihood}[how]
    if said:
        progress(label, len(pairs) - len(said), len(pairs))
    with evaluating(local.model):
        rate(local, [pairs[i] for i in said], batch_size, _Kept(sure, said, progress, label))
    return sure


class _Kept:
    """Where the numbers of a batch go; tells the progress."""

    def __init__(
        self, sure: NDArray[np.float64], said: list[int], progress: Progress, label: str
    ) -> None:
        self.sure, self.said, self.progress, self.label = sure, said, progress, label
        self.done = len(sure) - len(said)

    def __call__(self, batch: Sequence[int], values: Tensor) -> None:
        self.sure[[self.said[i] for i in batch]] = values.cpu().double().numpy()
        self.done += len(batch)
        self.progress(self.label, self.done, len(self.sure))


def judgement_words(local: Reader) -> tuple[list[int], list[int]]:
    """The tokens of "True" and of "False" that are compared: the first ones, or where these are the
    same all of them.
    """
    true, false = text_ids(local.tokenizer, JUDGEMENTS)
    return (true, false) if true[0] == false[0] else (true[:1], false[:1])


def judged_rows(
    local: Reader, pairs: Sequence[tuple[Example, str]], word: Sequence[int]
) -> list[Row]:
    """Every pair's `judge_prompt` and `word` behind it."""
    prompts = prompt_ids(local.tokenizer, [judge_prompt(*pair) for pair in pairs])
    return [Row((*ids, *word), (True,) * len(ids), len(word)) for ids in prompts]


def said_rows(local: Reader, pairs: Sequence[tuple[Example, str]]) -> list[Row]:
    """Every pair's `explain_prompt` and its text behind it."""
    prompts = prompt_ids(local.tokenizer, [explain_prompt(example) for example, _ in pairs])
    texts = text_ids(local.tokenizer, [text for _, text in pairs])
    return [
        Row((*ids, *text), (True,) * len(ids), len(text))
        for ids, text in zip(prompts, texts, strict=True)
    ]


def _p_true(
    local: LocalModel, pairs: Sequence[tuple[Example, str]], batch_size: int, keep: _Kept
) -> None:
    true, false = judgement_words(local)
    if true[0] == false[0]:
        return _p_true_by_words(local, pairs, (true, false), batch_size, keep)

    def first_tokens(logits: Tensor, _targets: Tensor) -> Tensor:
        return torch.sigmoid(logits[:, true[0]] - logits[:, false[0]])

    rows = judged_rows(local, pairs, true)
    for batch in token_bounded([len(row.ids) for row in rows], batch_size):
        keep(batch, row_means(local, [rows[i] for i in batch], first_tokens)[0])


def _p_true_by_words(
    local: LocalModel,
    pairs: Sequence[tuple[Example, str]],
    words: tuple[list[int], list[int]],
    batch_size: int,
    keep: _Kept,
) -> None:
    both = [judged_rows(local, pairs, word) for word in words]
    for batch in token_bounded([len(row.question) for row in both[0]], batch_size):
        log_p = [
            -row_means(local, [rows[i] for i in batch], nll)[0] * rows[0].n_scored for rows in both
        ]
        keep(batch, torch.sigmoid(log_p[0] - log_p[1]))


def _likelihood(
    local: LocalModel, pairs: Sequence[tuple[Example, str]], batch_size: int, keep: _Kept
) -> None:
    rows = said_rows(local, pairs)
    for batch in token_bounded([len(row.ids) for row in rows], batch_size):
        keep(batch, torch.exp(-row_means(local, [rows[i] for i in batch], nll)[0]))
