"""How fast a local model works on this machine, from a few seconds of its own work.

The one idea: a call (an update, a decoding step) costs a constant and an amount per token. Both are
the line through two measured sizes. A size grows until its time can be trusted, so that a model of
a million parameters and one of a billion take about as long to measure. The first run of anything
is not counted: it fills caches and compiles kernels.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bridgekd.config import Lora, RuntimeOptions, Train
from bridgekd.core.prompts import answer_prompt, explain_prompt, render_question
from bridgekd.core.throughput import TokenCounts, WorkRate
from bridgekd.lm.decoding import Writing, continue_prompts
from bridgekd.lm.embedding import embed
from bridgekd.lm.encode import encode_rows, prompt_ids, text_ids
from bridgekd.lm.finetune import fine_tune
from bridgekd.lm.forward import evaluating
from bridgekd.lm.judging import confidence
from bridgekd.lm.loading import LocalModel
from bridgekd.lm.scoring import score
from bridgekd.records import Example, TrainRow
from bridgekd.selection.measure import DifficultyMeasure

MIN_S = 1.0  # a shorter time is not trusted
_TARGET_S = 1.5
_SMALL_BATCH = 8  # the smaller of two batches has one row of this number
_MIN_UPDATES = 3
_MAX_UPDATES = 30


def count_tokens(local: LocalModel, examples: Sequence[Example]) -> TokenCounts:
    """Return how this model's tokenizer counts questions like these and their prompts."""
    questions = [render_question(e) for e in examples]
    n_question, n_explain, n_answer = (
        fmean(map(len, ids))
        for ids in (
            text_ids(local.tokenizer, questions),
            prompt_ids(local.tokenizer, [explain_prompt(e) for e in examples]),
            prompt_ids(local.tokenizer, [answer_prompt(e) for e in examples]),
        )
    )
    return TokenCounts(
        per_character=n_question / max(1.0, fmean(map(len, questions))),
        explain_prompt=n_explain - n_question,
        answer_prompt=n_answer - n_question,
    )


def count_row_tokens(local: LocalModel, rows: Sequence[TrainRow]) -> list[int]:
    """Return the length of every training sequence in tokens."""
    return [len(row.ids) for row in encode_rows(local.tokenizer, rows)]


def measure_reading(local: LocalModel, examples: Sequence[Example]) -> WorkRate:
    """Return the seconds per prompt token of a model that reads prompts to continue them."""
    prompts = prompt_ids(local.tokenizer, [explain_prompt(e) for e in examples])
    n_read = 0

    def read(n: int) -> None:
        nonlocal n_read
        requests = [(ids, [i]) for i, ids in enumerate(prompts[:n])]
        _, n_read = continue_prompts(local, requests, Writing(1, frozenset(), n))

    with evaluating(local.model):
        _, seconds = _time_growing(read, len(prompts))
    return WorkRate(per_token_s=seconds / n_read)


def measure_decoding(
    local: LocalModel, example: Example, max_new_tokens: int, batch_size: int
) -> WorkRate:
    """Return the seconds per decoding step and per token of batches of up to `batch_size` rows.

    All rows continue one prompt, which is read once, so that a large batch is measured quickly.
    """
    (prompt,) = prompt_ids(local.tokenizer, [explain_prompt(example)])

    def decode(n_rows: int, n_steps: int) -> None:
        writing = Writing(n_steps + 1, frozenset(), n_rows)
        continue_prompts(local, [(prompt, range(n_rows))], writing)

    def time_step(n_rows: int) -> float:
        n_steps, seconds = _time_growing(lambda n: decode(n_rows, n), max(1, max_new_tokens - 1))
        started = time.monotonic()
        decode(n_rows, 0)
        reading = time.monotonic() - started
        return max(seconds - reading, seconds / 10) / n_steps

    small = max(1, batch_size // _SMALL_BATCH)
    with evaluating(local.model):
        return _fit_line((small, time_step(small)), (batch_size, time_step(batch_size)))


def measure_difficulty(
    local: LocalModel,
    examples: Sequence[Example],
    measure: DifficultyMeasure[Any] | None,
    max_new_tokens: int,
    batch_size: int,
) -> WorkRate:
    """Return the seconds per question of a model that scores a pool."""

    def work(n: int) -> None:
        score(
            local, examples[:n], measure=measure, max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )  # fmt: skip

    n, seconds = _time_growing(work, len(examples))
    return WorkRate(per_call_s=seconds / n)


def measure_confidence(
    local: LocalModel, pairs: Sequence[tuple[Example, str]], batch_size: int
) -> WorkRate:
    """Return the seconds per rationale of a model that scores rationales."""

    def work(n: int) -> None:
        confidence(local, pairs[:n], how="p_true", batch_size=batch_size)

    n, seconds = _time_growing(work, len(pairs))
    return WorkRate(per_call_s=seconds / n)


def measure_embedding(
    model: str | Path, texts: Sequence[str], device: str, batch_size: int
) -> WorkRate:
    """Return the seconds per text of an embedding model, without the time to load it."""

    def time_texts(n: int) -> tuple[float, float]:
        started = time.monotonic()
        embed(model, texts[:n], device=device, batch_size=batch_size)
        return n, time.monotonic() - started

    time_texts(1)
    rate = _fit_line(time_texts(1), time_texts(len(texts)))
    return WorkRate(per_call_s=rate.per_token_s)


def measure_training(
    base: str | Path,
    rows: Sequence[TrainRow],
    train: Train,
    *,
    device: str,
    revision: str | None,
    lora: Lora | None,
    runtime: RuntimeOptions,
) -> tuple[WorkRate, bool]:
    """Return the seconds per update and per token, and whether the training pads its rows.

    rows: of about the same length, so that a few of them stand for all.
    """
    n_processes, is_padded = runtime.num_processes, True

    def time_update(batch_size: int, n_updates: int) -> tuple[float, float]:
        nonlocal is_padded
        config = train.model_copy(update={"batch_size": batch_size, "updates": n_updates})
        times: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            log = fine_tune(
                base, rows, Path(folder) / "model", config, n_updates=n_updates, seed=0,
                device=device, revision=revision, lora=lora, runtime=runtime,
                progress=lambda what, done, total: times.append(time.monotonic()),
            )  # fmt: skip
        is_padded = not log.padding_free
        return log.n_tokens / n_updates, (times[-1] - times[1]) / (n_updates - 1)

    small = time_update(n_processes, _MIN_UPDATES)
    n_rows = max(2, int(_TARGET_S / small[1])) * n_processes
    batch_size = min(train.batch_size, n_rows)
    n_updates = min(_MAX_UPDATES, max(_MIN_UPDATES, n_rows // batch_size))
    large = time_update(batch_size, n_updates)
    return _fit_line(small, large), is_padded


def _time_growing(work: Callable[[int], None], n_max: int) -> tuple[int, float]:
    """(size, seconds) of the first size that takes at least MIN_S, or of the largest."""
    work(1)
    n = 1
    while True:
        started = time.monotonic()
        work(n)
        seconds = time.monotonic() - started
        if seconds >= MIN_S or n >= n_max:
            return n, max(seconds, 1e-9)
        n = min(n_max, max(n + 1, min(16 * n, int(n * _TARGET_S / max(seconds, 1e-9)))))


def _fit_line(small: tuple[float, float], large: tuple[float, float]) -> WorkRate:
    """The line through two points (tokens, seconds of a call); neither part is negative."""
    (n, s), (m, t) = small, large
    if m <= n:
        return WorkRate(per_token_s=t / m)
    slope = min(max((t - s) / (m - n), 0.0), t / m)
    return WorkRate(per_call_s=t - slope * m, per_token_s=slope)
