"""What a selector of rationales asks of models: lengths, and the probabilities of sentences."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from transformers import PreTrainedTokenizerBase

from bridgekd.grading.reasoning_steps import find_sentence_ends
from bridgekd.lm.confidence import Pairs, build_text_rows
from bridgekd.lm.forward import compute_scored_values, eval_mode, token_nll
from bridgekd.lm.load import LocalModel, load_tokenizer
from bridgekd.lm.memory import run_scoring
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Message


def count_text_tokens(model: str, revision: str | None, texts: Sequence[str]) -> list[int]:
    """Return the tokens of each text for a Hub id or folder, whose weights are not loaded."""
    return [len(ids) for ids in tokenize_continuations(load_tokenizer(model, revision), texts)]


def count_prompt_tokens(
    model: str, revision: str | None, prompts: Sequence[tuple[Message, ...]]
) -> list[int]:
    """Return the tokens of each prompt for a Hub id or folder, whose weights are not loaded."""
    return [len(ids) for ids in tokenize_prompts(load_tokenizer(model, revision), prompts)]


def score_sentences(
    local: LocalModel,
    pairs: Pairs,
    *,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "score sentences",
) -> list[list[float]]:
    """Return p = exp((1/T) sum_t log p(o_t | x, o_<t)) of every sentence of T tokens, in [0, 1].

    pairs: (question, text). The text follows `render_cot_prompt`. Because p is a mean over tokens,
    models with different vocabularies can be compared (arXiv 2512.20908). A text has one score for
    each of `find_sentence_ends`, a blank one has none.
    """
    filled = [i for i, (_, text) in enumerate(pairs) if text.strip()]
    texts = [pairs[i][1].rstrip() for i in filled]
    rows = build_text_rows(local.tokenizer, [(pairs[i][0], pairs[i][1].rstrip()) for i in filled])
    spans = _find_sentence_tokens(local.tokenizer, texts, [row.n_scored for row in rows])
    scores: list[list[float]] = [[] for _ in pairs]
    n_done = 0

    def run(batch: list[int]) -> None:
        nonlocal n_done
        _, values = compute_scored_values(local, [rows[i] for i in batch], token_nll)
        parts = torch.split(values.double().cpu(), [rows[i].n_scored for i in batch])
        for i, part in zip(batch, parts, strict=True):
            scores[filled[i]] = [float(torch.exp(-part[a:b].mean())) for a, b in spans[i]]
        n_done += len(batch)
        progress(label, n_done, len(filled))

    with eval_mode(local.model):
        run_scoring(local, [len(row.ids) for row in rows], batch_size, run)
    return scores


def _find_sentence_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], n_tokens: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """Return the first and the last token (exclusive) of each sentence; n_tokens: those of a text.

    A token that crosses the end of a sentence belongs to both, so each has one at least.
    """
    starts = [text[:end] for text in texts for end in find_sentence_ends(text)]
    lengths = iter([len(ids) for ids in tokenize_continuations(tokenizer, starts)])
    spans = []
    for text, total in zip(texts, n_tokens, strict=True):
        ends = [max(1, min(next(lengths), total)) for _ in find_sentence_ends(text)]
        ends = [*accumulate(ends[:-1], max), total]
        spans.append([(min(a, b - 1), b) for a, b in pairwise([0, *ends])])
    return spans
