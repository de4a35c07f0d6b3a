"""Difficulty and embedding of each question.

The forward pass for the difficulty also gives the embedding: the mean of the last hidden states
over the question's tokens. A `DifficultyMeasure` decides what the pass computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.errors import InputError
from bridgekd.lm import choice_logprobs
from bridgekd.lm.forward import compute_row_means, eval_mode, token_nll
from bridgekd.lm.generate import generate_ids
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import run_scoring, score_rows
from bridgekd.lm.score_inputs import (
    build_gold_rows,
    tokenize_answer_prefix,
    tokenize_answer_prompts,
)
from bridgekd.lm.tokenization import find_stop_ids
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Example
from bridgekd.selection.difficulty.loss import MEASURE as LOSS
from bridgekd.selection.measure import DifficultyMeasure

ROWS_PER_PART = 4096  # examples whose tokens are in memory at once; no batch crosses parts
Keep = Callable[[Sequence[int], NDArray[np.float64], Tensor], None]


@dataclass(frozen=True, slots=True)
class ScoredExamples:
    """Difficulty [n] (higher is harder) and L2-normalized embeddings [n, width] of n examples."""

    difficulty: NDArray[np.float64]
    embeddings: NDArray[np.float32]


def score_examples(
    local: LocalModel,
    examples: Sequence[Example],
    *,
    measure: DifficultyMeasure[Any] | None = LOSS,
    max_new_tokens: int = 32,
    batch_size: int | None,
    progress: Progress = ignore_progress,
    label: str = "score",
    part: int = ROWS_PER_PART,
) -> ScoredExamples:
    """Return difficulty and embedding of every example, in order.

    Without a measure the difficulty is 0. With a measure that scores the loss it is
    d_i = -(1/T_y) sum_t log p(y_t | x, y_<t) in nats, over the tokens of the gold answer; `Answer:`
    and the end token do not count. (BRIDGE states "loss-based scoring"; this formula is our
    reading.) With another measure, `score_choices` gets the mean log-likelihood of each choice,
    written `(B) text`, and `score_tokens` gets the logits of the model's greedy answer. The model
    generates it after the prompt and `Answer:`, up to `max_new_tokens`; its end token counts only
    if it is the only token.

    An embedding is the L2-normalized mean of the last hidden states over the question's tokens,
    choices included. A batch has at most the tokens of `batch_size` median rows; None: as many as
    memory holds. `part` limits the examples whose tokens are in memory at once. Raises InputError
    for an example without a gold answer, or if memory does not hold one row.
    """
    difficulty = np.zeros(len(examples), dtype=np.float64)
    embeddings = np.zeros((len(examples), 0), dtype=np.float32)
    n_done = 0
    progress(label, 0, len(examples))
    with eval_mode(local.model):
        for start in range(0, len(examples), part):

            def keep(
                batch: Sequence[int],
                values: NDArray[np.float64],
                vectors: Tensor,
                start: int = start,
            ) -> None:
                nonlocal embeddings, n_done
                if not embeddings.shape[1]:
                    embeddings = np.zeros((len(examples), vectors.shape[1]), dtype=np.float32)
                rows = np.asarray(batch) + start
                difficulty[rows] = values
                embeddings[rows] = vectors.float().cpu().numpy()
                n_done += len(rows)
                progress(label, n_done, len(examples))

            chunk = examples[start : start + part]
            if measure is None:
                _embed_only(local, chunk, batch_size, keep)
            elif measure.scores_loss:
                _score_gold(local, chunk, batch_size, keep)
            else:
                _score_choices(local, chunk, measure, batch_size, keep)
                _score_free(local, chunk, measure, max_new_tokens, batch_size, keep)
    return ScoredExamples(difficulty, embeddings)


def _score_gold(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, keep: Keep
) -> None:
    rows = build_gold_rows(local.tokenizer, examples)
    score_rows(local, rows, token_nll, batch_size, lambda b, means, e: keep(b, means.numpy(), e))


def _embed_only(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, keep: Keep
) -> None:
    end = int(local.tokenizer.eos_token_id)  # any token: a row needs one scored token
    rows = [
        prompt.append([end], 1) for prompt in tokenize_answer_prompts(local.tokenizer, examples)
    ]
    score_rows(local, rows, token_nll, batch_size, lambda b, _, e: keep(b, np.zeros(len(b)), e))


def _score_choices(
    local: LocalModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any],
    batch_size: int | None,
    keep: Keep,
) -> None:
    score_choices = measure.score_choices
    if score_choices is None:
        return
    closed = [i for i, example in enumerate(examples) if example.choices]

    def keep_batch(batch: list[int], log_ps: list[NDArray[np.float64]], embeddings: Tensor) -> None:
        difficulty = np.array([score_choices(log_p) for log_p in log_ps])
        keep([closed[i] for i in batch], difficulty, embeddings)

    choice_logprobs.score_batches(local, [examples[i] for i in closed], batch_size, keep_batch)


def _score_free(
    local: LocalModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any],
    max_new_tokens: int,
    batch_size: int | None,
    keep: Keep,
) -> None:
    """Generate an answer, then score the logits of its tokens in one more pass."""
    free = [i for i, e in enumerate(examples) if not (e.choices and measure.score_choices)]
    score_tokens = measure.score_tokens
    if not free:
        return
    if score_tokens is None:
        raise InputError(
            f"Example {examples[free[0]].id} has no choices, and the difficulty measure "
            f"{measure.name} is only for choices. Use another one."
        )
    prompts = tokenize_answer_prompts(local.tokenizer, [examples[i] for i in free])
    prefix = tokenize_answer_prefix(local.tokenizer)
    stop_ids = find_stop_ids(local.tokenizer, local.model)

    def run(batch: list[int]) -> None:
        texts = generate_ids(
            local, [(*prompts[i].ids, *prefix) for i in batch], max_new_tokens, stop_ids
        )
        rows = [
            prompts[i].append([*prefix, *(text or stop_ids[:1])], max(1, len(text)))
            for i, text in zip(batch, texts, strict=True)
        ]
        values, embeddings = compute_row_means(
            local, rows, lambda logits, targets: score_tokens(logits)
        )
        keep([free[i] for i in batch], values.numpy(), embeddings)

    run_scoring(local, [len(p.ids) + max_new_tokens for p in prompts], batch_size, run)
