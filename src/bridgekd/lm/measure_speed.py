"""The speed of a local model on this machine, from a few seconds of its work.

A call (an update, a decoding step) costs a constant time and a time per token. Both come from the
line through two measured sizes. A size grows until its time is long enough, so that small and large
models take about the same time to measure. The first run is not counted: it fills caches and
compiles kernels.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from bridgekd.lm.collate import batch_by_max_tokens
from bridgekd.lm.generate import generate_ids
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import choose_generation_batch
from bridgekd.lm.tokenization import tokenize_continuations, tokenize_prompts, tokenize_sequences
from bridgekd.lm.training_job import TrainingJob
from bridgekd.lm.training_loop import fine_tune
from bridgekd.prompts import render_cot_prompt, render_question
from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.records import Example, TrainingSequence
from bridgekd.throughput import WorkRate

MIN_S = 1.0  # a shorter time is not accurate enough
_TARGET_S = 1.5
_BATCH_RATIO = 8  # the smaller of the two measured batches is the larger one divided by this
_MIN_UPDATES = 3
_MAX_UPDATES = 30
_N_TYPICAL = 16  # rows with about the median length
_N_PROMPT = 16  # tokens of the prompt that decoding starts from
_N_DRAWS = 200


def count_tokens(local: LocalModel, examples: Sequence[Example]) -> tuple[float, float]:
    """Return (tokens per character of these questions, tokens that a prompt adds to a question)."""
    questions = [render_question(e) for e in examples]
    n_tokens = fmean(map(len, tokenize_continuations(local.tokenizer, questions)))
    n_prompt = fmean(map(len, _tokenize_cot_prompts(local, examples)))
    return n_tokens / max(1.0, fmean(map(len, questions))), n_prompt - n_tokens


def count_row_tokens(local: LocalModel, rows: Sequence[TrainingSequence]) -> list[int]:
    """Return the length of every training sequence in tokens."""
    return [len(row.ids) for row in tokenize_sequences(local.tokenizer, rows)]


def measure_reading(local: LocalModel, examples: Sequence[Example]) -> WorkRate:
    """Return the seconds per prompt token of a model that reads prompts."""
    prompts = _tokenize_cot_prompts(local, examples)
    n, seconds = _measure_growing(lambda n: generate_ids(local, prompts[:n], 1, ()), len(prompts))
    return WorkRate(per_token_s=seconds / sum(map(len, prompts[:n])))


def measure_decoding(
    local: LocalModel, examples: Sequence[Example], max_new_tokens: int, batch_size: int | None
) -> tuple[WorkRate, int]:
    """Return the seconds per decoding step and per token, and the batch size that is used.

    The rows continue the last tokens of a prompt. The time to read these is not counted.
    """
    prompts = _tokenize_cot_prompts(local, examples)
    max_length = max(map(len, prompts))
    size = batch_size or choose_generation_batch(local, max_length, max_new_tokens)

    def measure_step(n_rows: int) -> float:
        def decode(n_steps: int) -> None:
            generate_ids(local, [prompts[0][-_N_PROMPT:]] * n_rows, 1 + n_steps, ())

        n_steps, seconds = _measure_growing(decode, max(1, max_new_tokens - 1))
        started = time.monotonic()
        decode(0)
        reading = time.monotonic() - started
        return max(seconds - reading, seconds / 10) / n_steps

    small = max(1, size // _BATCH_RATIO)
    return _fit_line((small, measure_step(small)), (size, measure_step(size))), size


def measure_training(
    base: str | Path,
    rows: Sequence[TrainingSequence],
    lengths: Sequence[int],
    train: TrainOptions,
    *,
    device: str,
    revision: str | None,
    lora: LoraOptions | None,
    runtime: RuntimeOptions,
) -> WorkRate:
    """Return the seconds per update and per token of a training on rows like these.

    lengths: tokens of the rows. The measurement trains on rows of about the median length, so that
    a few updates represent all. Then it adds the padding of the real batches.
    """
    middle = median(lengths)
    typical = sorted(range(len(rows)), key=lambda i: abs(lengths[i] - middle))[:_N_TYPICAL]
    n_processes, padding = runtime.num_processes, 1.0

    def measure_update(batch_size: int, n_updates: int) -> tuple[float, float]:
        nonlocal padding
        config = train.model_copy(update={"batch_size": batch_size, "updates": n_updates})
        times: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            job = TrainingJob(
                base, [rows[i] for i in typical], Path(folder) / "model", config,
                n_updates=n_updates, seed=0, device=device, revision=revision, lora=lora,
                runtime=runtime,
            )  # fmt: skip
            log = fine_tune(job, lambda *step: times.append(time.monotonic()))
        if not log.padding_free:
            padding = estimate_padding(lengths, train.batch_size, log.micro_tokens)
        return log.n_tokens / n_updates, (times[-1] - times[1]) / (n_updates - 1)

    small = measure_update(n_processes, _MIN_UPDATES)
    n_rows = max(2, int(_TARGET_S / small[1])) * n_processes
    batch_size = min(train.batch_size, n_rows)
    n_updates = min(_MAX_UPDATES, max(_MIN_UPDATES, n_rows // batch_size))
    rate = _fit_line(small, measure_update(batch_size, n_updates))
    return WorkRate(per_call_s=rate.per_call_s, per_token_s=rate.per_token_s * padding)


def estimate_padding(lengths: Sequence[int], batch_size: int, micro_tokens: int | None) -> float:
    """Return the mean size of an update with padding, divided by the size without padding.

    The updates are sampled from rows of these lengths and split into micro-batches as in a
    training.

    >>> estimate_padding([10, 10, 10], batch_size=8, micro_tokens=None)
    1.0
    >>> estimate_padding([10, 30], batch_size=64, micro_tokens=100) < 1.1
    True
    """
    rng, n_padded, n_tokens = np.random.default_rng(0), 0, 0
    for _ in range(_N_DRAWS):
        sampled = rng.choice(lengths, size=batch_size).tolist()
        n_tokens += sum(sampled)
        batches = batch_by_max_tokens(sampled, micro_tokens or sys.maxsize)
        n_padded += sum(len(batch) * sampled[batch[0]] for batch in batches)
    return n_padded / n_tokens


def _measure_growing(work: Callable[[int], object], n_max: int) -> tuple[int, float]:
    """Return (size, seconds) of the first size that takes MIN_S seconds, or of the largest."""
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
    """Return the line through two points (tokens, seconds of a call), with no negative part."""
    (n, n_s), (m, m_s) = small, large
    if m <= n:
        return WorkRate(per_token_s=m_s / m)
    slope = min(max((m_s - n_s) / (m - n), 0.0), m_s / m)
    return WorkRate(per_call_s=m_s - slope * m, per_token_s=slope)


def _tokenize_cot_prompts(local: LocalModel, examples: Sequence[Example]) -> list[list[int]]:
    return tokenize_prompts(local.tokenizer, [render_cot_prompt(e) for e in examples])
