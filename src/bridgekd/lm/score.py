"""How hard a model finds each question, and where the question lies: difficulty and embedding.

The one idea: the last hidden states of the pass that gives the difficulty, averaged over the
question's tokens, are the embedding. A `DifficultyMeasure` says what the pass looks at.
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

ROWS_PER_PART = 4096  # examples whose tokens are in memory at once; batches never reach across
OnPartScored = Callable[[Sequence[int], NDArray[np.float64], Tensor], None]


@dataclass(frozen=True, slots=True)
class ScoredExamples:
    """What a model thinks of n examples, in their order; higher difficulty = harder.

    difficulty [n]; embeddings [n, width] of length 1.
    """

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
    """Difficulty and embedding of every example, in order; without a measure difficulty is 0.

    A measure that needs gold gets d_i = -(1/T_y) sum_t log p(y_t | x, y_<t) in nats, over the gold
    answer's own tokens; the mark before it and the end token do not count. Raises InputError for an
    example without a gold answer. (BRIDGE states "loss-based scoring"; the formula is a reading.)

    Otherwise `score_choices` gets the mean log-likelihood of each choice, written `(B) text`, and
    `score_tokens` the logits of the model's greedy answer, which is written behind the prompt and
    `Answer:` up to `max_new_tokens`; its end token counts only if it is the only token.

    An embedding is the mean of the last hidden states over the question's tokens, options included,
    L2-normalised, from the same pass. A batch holds as many tokens as `batch_size` rows of the
    median length; None: as many as memory holds. So many examples as `part` says are tokens in
    memory at once. Raises InputError if memory does not hold one row.
    """
    kept = _ScoreColumns(len(examples), lambda done, of: progress(label, done, of))
    progress(label, 0, len(examples))
    with eval_mode(local.model):
        for start in range(0, len(examples), part):
            some = list(examples[start : start + part])
            kept.start = start
            if measure is None:
                _embed_only(local, some, batch_size, kept.keep)
            elif measure.needs_gold:
                _score_gold(local, some, batch_size, kept.keep)
            else:
                _score_choices(local, some, measure, batch_size, kept.keep)
                _score_free(local, some, measure, max_new_tokens, batch_size, kept.keep)
    return ScoredExamples(kept.difficulty, kept.embeddings)


class _ScoreColumns:
    """The columns of n examples as they fill; `start` is where the part begins that comes in."""

    def __init__(self, n: int, tell: Callable[[int, int], None]) -> None:
        self.difficulty = np.zeros(n, dtype=np.float64)
        self.embeddings = np.zeros((n, 0), dtype=np.float32)
        self.start = 0
        self._n_done = 0
        self._tell = tell

    def keep(self, batch: Sequence[int], values: NDArray[np.float64], embeddings: Tensor) -> None:
        n, width = len(self.difficulty), embeddings.shape[1]
        if not self.embeddings.shape[1]:
            self.embeddings = np.zeros((n, width), dtype=np.float32)
        rows = np.asarray(batch) + self.start
        self.difficulty[rows] = values
        self.embeddings[rows] = embeddings.float().cpu().numpy()
        self._n_done += len(rows)
        self._tell(self._n_done, n)


def _score_gold(
    local: LocalModel,
    examples: Sequence[Example],
    batch_size: int | None,
    keep: OnPartScored,
) -> None:
    rows = build_gold_rows(local, examples)
    score_rows(local, rows, token_nll, batch_size, lambda b, means, e: keep(b, means.numpy(), e))


def _embed_only(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, keep: OnPartScored
) -> None:
    end = int(local.tokenizer.eos_token_id)  # any token: a row has one that is looked at
    rows = [asked.append([end], 1) for asked in tokenize_answer_prompts(local, examples)]
    score_rows(local, rows, token_nll, batch_size, lambda b, _, e: keep(b, np.zeros(len(b)), e))


def _score_choices(
    local: LocalModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any],
    batch_size: int | None,
    keep: OnPartScored,
) -> None:
    score_choices = measure.score_choices
    if score_choices is None:
        return
    closed = [i for i, example in enumerate(examples) if example.choices]

    def told(batch: list[int], values: list[NDArray[np.float64]], embeddings: Tensor) -> None:
        difficulty = np.array([score_choices(log_p) for log_p in values])
        keep([closed[i] for i in batch], difficulty, embeddings)

    choice_logprobs.score_batches(local, [examples[i] for i in closed], batch_size, told)


def _score_free(
    local: LocalModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any],
    max_new_tokens: int,
    batch_size: int | None,
    keep: OnPartScored,
) -> None:
    """The model writes, then one pass over prompt and answer looks at how sure it was."""
    free = [i for i, e in enumerate(examples) if not (e.choices and measure.score_choices)]
    score_tokens = measure.score_tokens
    if not free:
        return
    if score_tokens is None:
        raise InputError(
            f"Example {examples[free[0]].id} has no choices, and the difficulty measure "
            f"{measure.name} is only for choices. Use another one."
        )
    asked = tokenize_answer_prompts(local, [examples[i] for i in free])
    mark = tokenize_answer_prefix(local)
    stop = find_stop_ids(local.tokenizer, local.model)

    def run(batch: list[int]) -> None:
        prompts = [(*asked[i].ids, *mark) for i in batch]
        written = generate_ids(local, prompts, max_new_tokens, stop)
        rows = [
            asked[i].append([*mark, *(text or stop[:1])], max(1, len(text)))
            for i, text in zip(batch, written, strict=True)
        ]
        values, embeddings = compute_row_means(
            local, rows, lambda logits, targets: score_tokens(logits)
        )
        keep([free[i] for i in batch], values.numpy(), embeddings)

    run_scoring(local, [len(a.ids) + max_new_tokens for a in asked], batch_size, run)
