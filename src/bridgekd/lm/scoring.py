"""How hard a model finds each question, and where the question lies: difficulty and embedding.

The one idea: the last hidden states of the pass that gives the difficulty, averaged over the
question's tokens, are the embedding. Three measures; only `loss` needs the gold answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bridgekd.core.difficulty import option_entropy, option_margin
from bridgekd.lm import options
from bridgekd.lm.encode import stop_ids
from bridgekd.lm.forward import evaluating, nll, row_means, token_entropy, token_margin
from bridgekd.lm.generating import continue_ids
from bridgekd.lm.loading import LocalModel
from bridgekd.lm.memory import run_scoring, score_rows
from bridgekd.lm.questions import ask, gold_rows, gold_targets, mark_ids
from bridgekd.progress import Progress, silent
from bridgekd.records import Example

Measure = Literal["loss", "entropy", "margin"]
OVER_OPTIONS = {"entropy": option_entropy, "margin": option_margin}
OVER_TOKENS = {"entropy": token_entropy, "margin": token_margin}
PART = 4096  # examples whose tokens are in memory at once; batches never reach across
Told = Callable[[Sequence[int], NDArray[np.float64], Tensor], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model thinks of n examples, in their order; higher difficulty = harder.

    difficulty [n]; n_answer_tokens [n], 0 where there is no gold answer; embeddings [n, width] of
    length 1.
    """

    difficulty: NDArray[np.float64]
    n_answer_tokens: NDArray[np.int64]
    embeddings: NDArray[np.float32]


def score(
    local: LocalModel,
    examples: Sequence[Example],
    *,
    measure: Measure | None = "loss",
    max_new_tokens: int = 32,
    batch_size: int | None,
    progress: Progress = silent,
    label: str = "score",
    part: int = PART,
) -> Scored:
    """Difficulty and embedding of every example, in order. docs/methods.md has the levels.

    loss ("loss-based scoring" stated, formula reading): d_i = -(1/T_y) sum_t log p(y_t | x, y_<t)
    in nats, over the gold answer's own tokens; the mark before it and the end token do not count.
    Raises BadInput for an example without a gold answer.

    entropy ("entropic difficulty" stated, formula reading): with options, -sum_c p(c) log p(c) /
    log C in [0, 1], p proportional to exp(mean log-likelihood of `(B) text`). Free text: the mean
    entropy in nats of the next token over the model's greedy answer, which is written behind the
    prompt and `Answer:` up to `max_new_tokens`; its end token counts only where nothing else is.

    margin (ours): with options 1 - (p1 - p2) of the two likeliest; free text: the mean of 1 -
    (p1 - p2) over the tokens of the greedy answer. In [0, 1].

    An embedding is the mean of the last hidden states over the question's tokens, options included,
    L2-normalised, from the same pass. A batch holds as many tokens as `batch_size` rows of the
    median length; None: as many as memory holds. So many examples as `part` says are tokens in
    memory at once. Raises InputError if memory does not hold one row.
    """
    kept = _Kept(len(examples), lambda done, of: progress(label, done, of))
    with evaluating(local.model):
        for start in range(0, len(examples), part):
            some = list(examples[start : start + part])
            gold = gold_targets(local, some)
            kept.start, kept.n_tokens[start : start + len(some)] = start, [n for _, n in gold]
            if measure == "loss":
                _score_gold(local, some, gold, batch_size, kept.keep)
            elif measure is None:
                _embed_alone(local, some, batch_size, kept.keep)
            else:
                _score_options(local, some, measure, batch_size, kept.keep)
                _score_free(local, some, measure, max_new_tokens, batch_size, kept.keep)
    return Scored(kept.difficulty, kept.n_tokens, kept.embeddings)


class _Kept:
    """The columns of n examples as they fill; `start` is where the part begins that comes in."""

    def __init__(self, n: int, tell: Callable[[int, int], None]) -> None:
        self.difficulty = np.zeros(n, dtype=np.float64)
        self.n_tokens = np.zeros(n, dtype=np.int64)
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
    gold: Sequence[tuple[list[int], int]],
    batch_size: int | None,
    keep: Told,
) -> None:
    rows = gold_rows(local, examples, gold)
    score_rows(local, rows, nll, batch_size, lambda b, means, e: keep(b, means.numpy(), e))


def _embed_alone(
    local: LocalModel, examples: Sequence[Example], batch_size: int | None, keep: Told
) -> None:
    end = int(local.tokenizer.eos_token_id)  # any token: a row has one that is looked at
    rows = [asked.followed_by([end], 1) for asked in ask(local, examples)]
    score_rows(local, rows, nll, batch_size, lambda b, _, e: keep(b, np.zeros(len(b)), e))


def _score_options(
    local: LocalModel, examples: Sequence[Example], measure: str, batch_size: int | None, keep: Told
) -> None:
    closed = [i for i, example in enumerate(examples) if example.choices]

    def told(batch: list[int], values: list[NDArray[np.float64]], embeddings: Tensor) -> None:
        difficulty = np.array([OVER_OPTIONS[measure](log_p) for log_p in values])
        keep([closed[i] for i in batch], difficulty, embeddings)

    options.each_batch(local, [examples[i] for i in closed], batch_size, told)


def _score_free(
    local: LocalModel,
    examples: Sequence[Example],
    measure: str,
    max_new_tokens: int,
    batch_size: int | None,
    keep: Told,
) -> None:
    """The model writes, then one pass over prompt and answer looks at how sure it was."""
    free = [i for i, example in enumerate(examples) if not example.choices]
    asked = ask(local, [examples[i] for i in free])
    mark = mark_ids(local)
    stop = stop_ids(local.tokenizer, local.model)

    def run(batch: list[int]) -> None:
        prompts = [(*asked[i].ids, *mark) for i in batch]
        written = continue_ids(local, prompts, max_new_tokens, stop)
        rows = [
            asked[i].followed_by([*mark, *(text or stop[:1])], max(1, len(text)))
            for i, text in zip(batch, written, strict=True)
        ]
        values, embeddings = row_means(local, rows, OVER_TOKENS[measure])
        keep([free[i] for i in batch], values.numpy(), embeddings)

    run_scoring(local, [len(a.ids) + max_new_tokens for a in asked], batch_size, run)
