"""Confidence of a model in a text that answers a question, in [0, 1]."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bridgekd.lm.forward import ScoringRow, eval_mode, token_nll
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import score_rows
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.progress import Progress, ignore_progress
from bridgekd.prompts import JUDGE_LABELS, render_cot_prompt, render_judge_prompt
from bridgekd.records import Example

ConfidenceMeasure = Literal["p_true", "likelihood"]
Pairs = Sequence[tuple[Example, str]]
Keep = Callable[[list[int], Tensor, Tensor], None]


def estimate_confidence(
    local: LocalModel,
    pairs: Pairs,
    *,
    measure: ConfidenceMeasure,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "judge",
) -> NDArray[np.float64]:
    """Return the model's confidence c_A(x, o) in each text o, [n] in [0, 1], in order.

    A text is an answer or a full rationale. A blank text has confidence 0.

    p_true: P("True") / (P("True") + P("False")) after `render_judge_prompt`. The paper says that
    the confidence of an assistant filters rationales (arXiv 2406.05322). This formula is our
    reading: P(True) of Kadavath et al. 2022 (arXiv 2207.05221). It compares the first tokens of the
    two words, or all their tokens if the first ones are the same.

    likelihood: exp((1/T) sum_t log p(o_t | x, o_<t)) after `render_cot_prompt`, our reading.
    `Answer:` and the answer count, the end token does not.
    """
    confidence = np.zeros(len(pairs), dtype=np.float64)
    filled = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    score = {"p_true": _score_p_true, "likelihood": _score_likelihood}[measure]
    n_done = len(pairs) - len(filled)
    if filled:
        progress(label, n_done, len(pairs))

    def keep(batch: list[int], values: Tensor, _embeddings: Tensor) -> None:
        nonlocal n_done
        confidence[[filled[i] for i in batch]] = values.cpu().double().numpy()
        n_done += len(batch)
        progress(label, n_done, len(pairs))

    with eval_mode(local.model):
        score(local, [pairs[i] for i in filled], batch_size, keep)
    return confidence


def compute_ifd(
    local: LocalModel,
    pairs: Pairs,
    *,
    batch_size: int | None,
    progress: Progress = ignore_progress,
) -> NDArray[np.float64]:
    """Return IFD = PPL(o given x) / PPL(o) of each text o, [n] above 0, in order.

    Instruction-following difficulty (Li et al., arXiv 2308.12032): 1 or more if the question x does
    not help to write o. Both perplexities are over all tokens of o but the first, which has nothing
    before it without x (our reading). x is `render_cot_prompt`. A text of fewer than two tokens
    has 1.
    """
    conditional = build_text_rows(local.tokenizer, pairs)
    with_prompt, alone, scored = [], [], []
    for i, row in enumerate(conditional):
        if row.n_scored >= 2:
            n, text = row.n_scored - 1, row.ids[len(row.ids) - row.n_scored :]
            with_prompt.append(ScoringRow(row.ids, row.is_question, n))
            alone.append(ScoringRow(text, (True,), n))
            scored.append(i)
    loss = np.zeros((2, len(pairs)))
    n_done = 0
    for k, rows in enumerate((with_prompt, alone)):

        def keep(batch: list[int], means: Tensor, _embeddings: Tensor, k: int = k) -> None:
            nonlocal n_done
            loss[k, [scored[i] for i in batch]] = means.cpu().double().numpy()
            n_done += len(batch)
            progress("compute IFD", n_done, 2 * len(scored))

        with eval_mode(local.model):
            score_rows(local, rows, token_nll, batch_size, keep)
    return np.asarray(np.exp(loss[0] - loss[1]))


def find_judge_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the tokens of "True" and of "False" that are compared.

    These are the first tokens, or all tokens if the first ones are the same.
    """
    true, false = tokenize_continuations(tokenizer, JUDGE_LABELS)
    return (true, false) if true[0] == false[0] else (true[:1], false[:1])


def build_judge_rows(
    tokenizer: PreTrainedTokenizerBase, pairs: Pairs, word: Sequence[int]
) -> list[ScoringRow]:
    """Return the judge prompt of every pair, followed by `word`."""
    prompts = tokenize_prompts(tokenizer, [render_judge_prompt(*pair) for pair in pairs])
    return [ScoringRow((*ids, *word), (True,) * len(ids), len(word)) for ids in prompts]


def build_text_rows(tokenizer: PreTrainedTokenizerBase, pairs: Pairs) -> list[ScoringRow]:
    """Return the chain-of-thought prompt of every pair, followed by its text."""
    prompts = tokenize_prompts(tokenizer, [render_cot_prompt(e) for e, _ in pairs])
    texts = tokenize_continuations(tokenizer, [text for _, text in pairs])
    return [
        ScoringRow((*ids, *text), (True,) * len(ids), len(text))
        for ids, text in zip(prompts, texts, strict=True)
    ]


def _score_p_true(local: LocalModel, pairs: Pairs, batch_size: int | None, keep: Keep) -> None:
    words = true, false = find_judge_tokens(local.tokenizer)
    if true[0] != false[0]:

        def compare_first_tokens(logits: Tensor, _targets: Tensor) -> Tensor:
            return torch.sigmoid(logits[:, true[0]] - logits[:, false[0]])

        rows = build_judge_rows(local.tokenizer, pairs, true)
        score_rows(local, rows, compare_first_tokens, batch_size, keep)
        return
    log_p = torch.zeros(2, len(pairs), dtype=torch.float64)
    for k, word in enumerate(words):

        def add(batch: list[int], means: Tensor, _: Tensor, k: int = k, n: int = len(word)) -> None:
            log_p[k, batch] = -means * n

        score_rows(
            local, build_judge_rows(local.tokenizer, pairs, word), token_nll, batch_size, add
        )
    keep(list(range(len(pairs))), torch.sigmoid(log_p[0] - log_p[1]), log_p)


def _score_likelihood(local: LocalModel, pairs: Pairs, batch_size: int | None, keep: Keep) -> None:
    score_rows(
        local,
        build_text_rows(local.tokenizer, pairs),
        token_nll,
        batch_size,
        lambda batch, means, states: keep(batch, torch.exp(-means), states),
    )
