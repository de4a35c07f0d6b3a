"""What a local model writes: one text of every prompt, or several.

Rows of like length go through `model.generate` of transformers together. The batches depend on the
lengths and the batch size alone, and a batch is written as a whole or not at all. So a call that
was stopped and is repeated ends with the same texts. Every row has a random stream of its own, so
that its batch changes none of its samples.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from bridgekd.lm.collate import batch_by_length, pad_left
from bridgekd.lm.forward import eval_mode
from bridgekd.lm.load import LocalModel, check_fits_positions, get_model_name
from bridgekd.lm.memory import choose_generation_batch, run_batches
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Message
from bridgekd.rng import SEED_STEP, make_rng
from bridgekd.throughput import Throughput

OnBatch = Callable[[list[int], list[str]], None]


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The tokens of a prompt, and the seed and purpose of the row's random stream."""

    ids: Sequence[int]
    seed: int = 0
    purpose: str = ""


def generate_texts(
    local: LocalModel,
    prompts: Sequence[tuple[Message, ...]],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = ignore_progress,
    label: str = "generate",
    known: Mapping[int, str] | None = None,
    on_batch: OnBatch | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[str]:
    """Return what the model writes after each prompt, in the order of the prompts, without blanks
    at its ends.

    Greedy at temperature 0. Otherwise row i draws from its own stream, seeded by (seed, i), so that
    what it draws does not depend on the batch it is in. A text ends at the end of its turn, at
    end-of-text, after `max_new_tokens`, or with the first match of `until`, which has to end in a
    line break. `batch_size` rows are written at one time; None: as many as memory holds.
    `on_batch(row numbers, texts)` is called after each batch. `known` holds texts by row number
    that an earlier, stopped call wrote: a batch that it has in full is not written again.
    `throughput` is added to. Raises InputError if memory does not hold one row.
    """

    def handle_batch(rows: list[int], texts: list[tuple[str, ...]]) -> None:
        if on_batch is not None:
            on_batch(rows, [own[0] for own in texts])

    samples = sample_texts(
        local, prompts, 1,
        max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature, seed=seed,
        progress=progress, label=label, known={i: (text,) for i, text in (known or {}).items()},
        on_batch=handle_batch, until=until, throughput=throughput,
    )  # fmt: skip
    return [texts[0] for texts in samples]


def sample_texts(
    local: LocalModel,
    prompts: Sequence[tuple[Message, ...]],
    n: int,
    *,
    max_new_tokens: int,
    batch_size: int | None,
    temperature: float,
    seed: int = 0,
    progress: Progress = ignore_progress,
    label: str = "sample",
    known: Mapping[int, Sequence[str]] | None = None,
    on_batch: Callable[[list[int], list[tuple[str, ...]]], None] | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[tuple[str, ...]]:
    """Return `n` texts of every prompt. Text k is the one that `generate` draws with the seed
    `seed + k * SEED_STEP`. The rest is as there. Raises InputError where a text may pass the
    model's table of positions.
    """
    ids = tokenize_prompts(local.tokenizer, prompts)
    longest = max(map(len, ids), default=0)
    check_fits_positions(local, longest + max_new_tokens)
    size = batch_size or choose_generation_batch(local, longest, max_new_tokens)
    spec = _Spec(max_new_tokens, find_stop_ids(local.tokenizer, local.model), until, temperature)
    known = known or {}
    texts = [tuple(known.get(i, ())) for i in range(len(ids))]
    n_done = 0
    if len(known) < len(ids):
        progress(label, len(known), len(ids))
    for batch in batch_by_length([len(row) for row in ids], max(1, size // n)):
        if not all(i in known for i in batch):
            seeds = [seed + k * SEED_STEP for k in range(n)]
            rows = [PromptRow(ids[i], s, f"generate row {i}") for i in batch for s in seeds]
            written = iter(_generate_rows(local, rows, spec, size, throughput))
            for i in batch:
                texts[i] = tuple(next(written) for _ in range(n))
            if on_batch is not None:
                on_batch(batch, [texts[i] for i in batch])
            progress(label, n_done + len(batch), len(ids))
        n_done += len(batch)
    return texts


def generate_ids(
    local: LocalModel, ids: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[int]
) -> list[list[int]]:
    """Return the new tokens of each row, greedy, without the token that stopped it."""
    check_fits_positions(local, max(map(len, ids), default=0) + max_new_tokens)
    rows = [PromptRow(row) for row in ids]
    return _generate_batch(local, rows, _Spec(max_new_tokens, stop)) if rows else []


def sample_ids(
    local: LocalModel, rows: Sequence[PromptRow], max_new_tokens: int, stop: Sequence[int]
) -> list[list[int]]:
    """Return one sample at temperature 1 for each row, without the token that stopped it."""
    longest = max((len(row.ids) for row in rows), default=0)
    size = choose_generation_batch(local, longest, max_new_tokens)
    return _generate_ids(local, rows, _Spec(max_new_tokens, stop, temperature=1.0), size)


@dataclass(frozen=True, slots=True)
class _Spec:
    """How rows are written, and after which tokens or which text they end."""

    max_new_tokens: int
    stop: Sequence[int]
    until: re.Pattern[str] | None = None
    temperature: float = 0.0


def _generate_rows(
    local: LocalModel,
    rows: Sequence[PromptRow],
    spec: _Spec,
    batch_size: int,
    throughput: Throughput | None,
) -> list[str]:
    """Return the texts of rows of like length, at most `batch_size` at one time."""
    started = time.monotonic()
    new = _generate_ids(local, rows, spec, batch_size)
    texts = local.tokenizer.batch_decode(new, skip_special_tokens=True)
    if throughput is not None:
        throughput.add(
            n_texts=len(texts),
            n_prompt_tokens=sum(len(row.ids) for row in rows),
            n_generated_tokens=sum(map(len, new)),
            seconds=time.monotonic() - started,
        )
    ends = [spec.until.search(text) if spec.until else None for text in texts]
    return [(text[: e.end()] if e else text).strip() for text, e in zip(texts, ends, strict=True)]


def _generate_ids(
    local: LocalModel, rows: Sequence[PromptRow], spec: _Spec, batch_size: int
) -> list[list[int]]:
    """Return the new tokens of each row, in batches of like length."""
    new: list[list[int]] = [[] for _ in rows]

    def run(batch: list[int]) -> None:
        tokens = _generate_batch(local, [rows[i] for i in batch], spec)
        for i, own in zip(batch, tokens, strict=True):
            new[i] = own

    lengths = [len(row.ids) for row in rows]
    run_batches(get_model_name(local), lengths, batch_by_length(lengths, batch_size), run)
    return new


@torch.inference_mode()
def _generate_batch(local: LocalModel, rows: Sequence[PromptRow], spec: _Spec) -> list[list[int]]:
    """Return the new tokens of each row in one call of `model.generate`."""
    model: Any = local.model
    pad_id = int(local.tokenizer.pad_token_id)
    ids, mask = pad_left([row.ids for row in rows], pad_id, local.device)
    width = ids.shape[1]
    line_end = _LineEnd(local, spec.until, width)
    settings: Any = GenerationConfig
    config = settings(
        max_new_tokens=spec.max_new_tokens, do_sample=False, eos_token_id=list(spec.stop),
        pad_token_id=pad_id, bos_token_id=local.tokenizer.bos_token_id,
    )  # fmt: skip
    with eval_mode(model), _replaced_config(model, config):
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=[_RowSampler(rows, spec, width)] if spec.temperature else [],
            stopping_criteria=[line_end] if spec.until else [],
        )
    stop = set(spec.stop)
    tokens = [row[: line_end.lengths.get(i)] for i, row in enumerate(out[:, width:].tolist())]
    return [row[: next((k for k, t in enumerate(row) if t in stop), len(row))] for row in tokens]


@contextmanager
def _replaced_config(model: Any, config: Any) -> Iterator[None]:
    """The model with `config` alone: its own may have a repetition penalty or forced tokens."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


class _RowSampler(LogitsProcessor):
    """Leaves one token of every row possible: where the cumulated probability passes the row's
    random number for this step.
    """

    def __init__(self, rows: Sequence[PromptRow], spec: _Spec, width: int) -> None:
        draws = [make_rng(row.seed, row.purpose).random(spec.max_new_tokens) for row in rows]
        self.draws = torch.from_numpy(np.stack(draws))
        self.temperature, self.width = spec.temperature, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        draw = self.draws[:, input_ids.shape[1] - self.width, None].to(scores.device)
        cumulated = torch.softmax(scores.double() / self.temperature, -1).cumsum(-1)
        token = torch.searchsorted(cumulated, draw * cumulated[:, -1:], right=True)
        token = token.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)


class _LineEnd(StoppingCriteria):
    """Ends a row with the first match of `until`, searched only after a token with a line break.

    `lengths` holds the number of new tokens of the rows that ended this way.
    """

    def __init__(self, local: LocalModel, until: re.Pattern[str] | None, width: int) -> None:
        self.tokenizer, self.until, self.width = local.tokenizer, until, width
        self.lengths: dict[int, int] = {}
        self._breaks: dict[int, bool] = {}

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if i not in self.lengths and self._has_break(token):
                new = input_ids[i, self.width :]
                text = str(self.tokenizer.decode(new, skip_special_tokens=True))
                if self.until is not None and self.until.search(text):
                    self.lengths[i] = len(new)
        ended = torch.zeros(len(input_ids), dtype=torch.bool)
        ended[list(self.lengths)] = True
        return ended.to(input_ids.device)

    def _has_break(self, token: int) -> bool:
        if token not in self._breaks:
            self._breaks[token] = "\n" in str(self.tokenizer.decode([token]))
        return self._breaks[token]
