"""How sure a model is of a text that was written for a question, as a number in [0, 1]."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.lm.forward import ScoringRow, eval_mode, token_nll
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import score_rows
from bridgekd.lm.score_inputs import HasTokenizer
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.progress import Progress, ignore_progress
from bridgekd.prompts import JUDGE_LABELS, render_cot_prompt, render_judge_prompt
from bridgekd.records import Example

ConfidenceMeasure = Literal["p_true", "likelihood"]
Keep = Callable[[list[int], Tensor, Tensor], None]


def estimate_confidence(
    local: LocalModel,
    pairs: Sequence[tuple[Example, str]],
    *,
    measure: ConfidenceMeasure,
    batch_size: int | None,
    progress: Progress = ignore_progress,
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
    filled = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    rate = {"p_true": _p_true, "likelihood": _likelihood}[measure]
    n_done = len(pairs) - len(filled)
    if filled:
        progress(label, n_done, len(pairs))

    def keep(batch: list[int], values: Tensor, _embeddings: Tensor) -> None:
        nonlocal n_done
        sure[[filled[i] for i in batch]] = values.cpu().double().numpy()
        n_done += len(batch)
        progress(label, n_done, len(pairs))

    with eval_mode(local.model):
        rate(local, [pairs[i] for i in filled], batch_size, keep)
    return sure


def find_judge_tokens(local: HasTokenizer) -> tuple[list[int], list[int]]:
    """The tokens of "True" and of "False" that are compared: the first ones, or where these are the
    same all of them.
    """
    true, false = tokenize_continuations(local.tokenizer, JUDGE_LABELS)
    return (true, false) if true[0] == false[0] else (true[:1], false[:1])


def build_judge_rows(
    local: HasTokenizer, pairs: Sequence[tuple[Example, str]], word: Sequence[int]
) -> list[ScoringRow]:
    """Every pair's `judge_prompt` and `word` behind it."""
    prompts = tokenize_prompts(local.tokenizer, [render_judge_prompt(*pair) for pair in pairs])
    return [ScoringRow((*ids, *word), (True,) * len(ids), len(word)) for ids in prompts]


def build_text_rows(local: HasTokenizer, pairs: Sequence[tuple[Example, str]]) -> list[ScoringRow]:
    """Every pair's `explain_prompt` and its text behind it."""
    prompts = tokenize_prompts(
        local.tokenizer, [render_cot_prompt(example) for example, _ in pairs]
    )
    texts = tokenize_continuations(local.tokenizer, [text for _, text in pairs])
    return [
        ScoringRow((*ids, *text), (True,) * len(ids), len(text))
        for ids, text in zip(prompts, texts, strict=True)
    ]


def _p_true(
    local: LocalModel, pairs: Sequence[tuple[Example, str]], batch_size: int | None, keep: Keep
) -> None:
    true, false = find_judge_tokens(local)
    if true[0] == false[0]:
        return _p_true_by_words(local, pairs, (true, false), batch_size, keep)

    def compare_first_tokens(logits: Tensor, _targets: Tensor) -> Tensor:
        return torch.sigmoid(logits[:, true[0]] - logits[:, false[0]])

    score_rows(local, build_judge_rows(local, pairs, true), compare_first_tokens, batch_size, keep)


def _p_true_by_words(
    local: LocalModel,
    pairs: Sequence[tuple[Example, str]],
    words: tuple[list[int], list[int]],
    batch_size: int | None,
    keep: Keep,
) -> None:
    log_p = torch.zeros(2, len(pairs), dtype=torch.float64)
    for k, word in enumerate(words):
        rows = build_judge_rows(local, pairs, word)

        def add(batch: list[int], means: Tensor, _: Tensor, k: int = k, n: int = len(word)) -> None:
            log_p[k, batch] = -means * n

        score_rows(local, rows, token_nll, batch_size, add)
    everything = list(range(len(pairs)))
    keep(everything, torch.sigmoid(log_p[0] - log_p[1]), log_p)


def _likelihood(
    local: LocalModel, pairs: Sequence[tuple[Example, str]], batch_size: int | None, keep: Keep
) -> None:
    rows = build_text_rows(local, pairs)
    score_rows(
        local, rows, token_nll, batch_size, lambda b, means, e: keep(b, torch.exp(-means), e)
    )
