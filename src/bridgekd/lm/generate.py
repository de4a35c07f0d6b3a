"""Texts that a local model generates: one or several for every prompt.

`model.generate` of transformers gets rows of similar length together. The batches depend on the
lengths and the batch size only, and a batch is kept as a whole or not at all. So a call that was
stopped and is repeated ends with the same texts. Every row has its own random stream, so its batch
does not change its samples.
"""

import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from bridgekd.lm.collate import batch_by_length, pad_rows
from bridgekd.lm.forward import MAX_LOGITS, eval_mode, split_tokens
from bridgekd.lm.load import LocalModel, check_fits_positions, get_model_name
from bridgekd.lm.memory import choose_generation_batch, run_batches
from bridgekd.lm.tokenization import find_stop_ids, tokenize_prompts
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import Message
from bridgekd.rng import SEED_STEP, make_rng
from bridgekd.throughput import OnSamples, TextLength, Throughput

TRIM_STEPS = 16


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The tokens of a prompt, and the seed and purpose of the row's random stream."""

    ids: Sequence[int]
    seed: int = 0
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class _GenerationSpec:
    """How to generate, and the tokens or the text that end a row."""

    max_new_tokens: int
    stop_ids: Sequence[int]
    until: re.Pattern[str] | None = None
    temperature: float = 0.0


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
    on_batch: Callable[[list[int], list[str], list[TextLength]], None] | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[str]:
    """Return the text that the model generates for each prompt, in order, without blanks around it.
    After a last message of the assistant it is the continuation of that message.

    Temperature 0 is greedy. Otherwise row i has its own random stream, seeded by (seed, i). A text
    ends at the end of its turn, at end-of-text, after `max_new_tokens`, or with the first match of
    `until`, which must end in a line break. `batch_size` is the number of rows at one time; None:
    as many as memory holds. `on_batch(row numbers, texts, lengths)` is called after each batch.
    `known` has texts of an earlier, stopped call by row number; a batch that is fully known is not
    generated again. The work is added to `throughput`. Raises InputError if memory does not hold
    one row.
    """

    def handle_batch(
        rows: list[int], texts: list[tuple[str, ...]], lengths: list[tuple[TextLength, ...]]
    ) -> None:
        if on_batch is not None:
            on_batch(rows, [samples[0] for samples in texts], [each[0] for each in lengths])

    texts = sample_texts(
        local, prompts, 1,
        max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature, seed=seed,
        progress=progress, label=label, known={i: (text,) for i, text in (known or {}).items()},
        on_batch=handle_batch, until=until, throughput=throughput,
    )  # fmt: skip
    return [samples[0] for samples in texts]


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
    on_batch: OnSamples | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[tuple[str, ...]]:
    """Return `n` texts for every prompt; the arguments are those of `generate_texts`.

    Text k is the one that `generate_texts` samples with the seed `seed + k * SEED_STEP`. Raises
    InputError if a text may be longer than the position table of the model.
    """
    ids = tokenize_prompts(local.tokenizer, prompts)
    max_length = max(map(len, ids), default=0)
    check_fits_positions(local, max_length + max_new_tokens)
    size = batch_size or choose_generation_batch(local, max_length, max_new_tokens)
    stop_ids = find_stop_ids(local.tokenizer, local.model)
    spec = _GenerationSpec(max_new_tokens, stop_ids, until, temperature)
    known = known or {}
    texts = [tuple(known.get(i, ())) for i in range(len(ids))]
    n_done = 0
    if len(known) < len(ids):
        progress(label, len(known), len(ids))
    for batch in batch_by_length([len(row) for row in ids], max(1, size // n)):
        if not all(i in known for i in batch):
            seeds = [seed + k * SEED_STEP for k in range(n)]
            rows = [PromptRow(ids[i], s, f"generate row {i}") for i in batch for s in seeds]
            new_texts, lengths = _generate_rows(local, rows, spec, size, throughput)
            groups = [slice(k * n, k * n + n) for k in range(len(batch))]
            for i, group in zip(batch, groups, strict=True):
                texts[i] = tuple(new_texts[group])
            if on_batch is not None:
                of_rows = [tuple(lengths[group]) for group in groups]
                on_batch(batch, [texts[i] for i in batch], of_rows)
            progress(label, n_done + len(batch), len(ids))
        n_done += len(batch)
    return texts


def generate_ids(
    local: LocalModel, ids: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int]
) -> list[list[int]]:
    """Return the new tokens of each row, greedy, without the token that ended it."""
    check_fits_positions(local, max(map(len, ids), default=0) + max_new_tokens)
    rows = [PromptRow(row) for row in ids]
    return _generate_batch(local, rows, _GenerationSpec(max_new_tokens, stop_ids)) if rows else []


def sample_ids(
    local: LocalModel,
    rows: Sequence[PromptRow],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    temperature: float = 1.0,
) -> list[list[int]]:
    """Return one sample for each row, without the token that ended it.

    Raises InputError as `sample_texts`.
    """
    max_length = max((len(row.ids) for row in rows), default=0)
    check_fits_positions(local, max_length + max_new_tokens)
    size = choose_generation_batch(local, max_length, max_new_tokens)
    return _generate_ids(
        local, rows, _GenerationSpec(max_new_tokens, stop_ids, None, temperature), size
    )


def _generate_rows(
    local: LocalModel,
    rows: Sequence[PromptRow],
    spec: _GenerationSpec,
    batch_size: int,
    throughput: Throughput | None,
) -> tuple[list[str], list[TextLength]]:
    """Return the texts of rows and their lengths, at most `batch_size` at one time."""
    started = time.monotonic()
    new_ids = _generate_ids(local, rows, spec, batch_size)
    texts = local.tokenizer.batch_decode(new_ids, skip_special_tokens=True)
    ends = [spec.until.search(text) if spec.until else None for text in texts]
    lengths = [
        TextLength(len(ids), end is None and len(ids) == spec.max_new_tokens)
        for end, ids in zip(ends, new_ids, strict=True)
    ]
    if throughput is not None:
        throughput.add(
            n_texts=len(texts),
            n_prompt_tokens=sum(len(row.ids) for row in rows),
            n_generated_tokens=sum(length.n_tokens for length in lengths),
            seconds=time.monotonic() - started,
            n_cut_off=sum(length.is_cut_off for length in lengths),
        )
    pairs = zip(texts, ends, strict=True)
    return [(text[: end.end()] if end else text).strip() for text, end in pairs], lengths


def _generate_ids(
    local: LocalModel, rows: Sequence[PromptRow], spec: _GenerationSpec, batch_size: int
) -> list[list[int]]:
    """Return the new tokens of each row, in batches of similar length."""
    new_ids: list[list[int]] = [[] for _ in rows]

    def run(batch: list[int]) -> None:
        results = _generate_batch(local, [rows[i] for i in batch], spec)
        for i, tokens in zip(batch, results, strict=True):
            new_ids[i] = tokens

    lengths = [len(row.ids) for row in rows]
    run_batches(get_model_name(local), lengths, batch_by_length(lengths, batch_size), run)
    return new_ids


@torch.inference_mode()
def _generate_batch(
    local: LocalModel, rows: Sequence[PromptRow], spec: _GenerationSpec
) -> list[list[int]]:
    """Return the new tokens of each row from one call of `model.generate`."""
    model: Any = local.model
    pad_id = int(local.tokenizer.pad_token_id)
    ids, mask = pad_rows([row.ids for row in rows], pad_id, local.device, side="left")
    width = ids.shape[1]
    text_end = _TextEnd(local, spec.until, width)
    config_class: Any = GenerationConfig
    config = config_class(
        max_new_tokens=spec.max_new_tokens, do_sample=False, eos_token_id=list(spec.stop_ids),
        pad_token_id=pad_id, bos_token_id=local.tokenizer.bos_token_id,
    )  # fmt: skip
    with eval_mode(model), _replace_generation_config(model, config):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=[_RowSampler(rows, spec, width)] if spec.temperature else [],
            stopping_criteria=[_HeapTrimmer(), *([text_end] if spec.until else [])],
        )
    stop = set(spec.stop_ids)
    tokens = [row[: text_end.lengths.get(i)] for i, row in enumerate(output[:, width:].tolist())]
    return [row[: next((k for k, t in enumerate(row) if t in stop), len(row))] for row in tokens]


@contextmanager
def _replace_generation_config(model: Any, config: Any) -> Iterator[None]:
    """Use only `config`: the model's own may have a repetition penalty or forced tokens."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


class _RowSampler(LogitsProcessor):
    """Allows one token per row: the one at which the cumulative probability exceeds a number.

    The number comes from the row's random stream.
    """

    def __init__(self, rows: Sequence[PromptRow], spec: _GenerationSpec, width: int) -> None:
        numbers = [make_rng(row.seed, row.purpose).random(spec.max_new_tokens) for row in rows]
        self.numbers = torch.from_numpy(np.stack(numbers))
        self.temperature, self.width = spec.temperature, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        number = self.numbers[:, input_ids.shape[1] - self.width, None].to(scores.device)
        # Two float64 copies of a row take the memory of four float32 ones.
        parts = split_tokens(len(scores), max(1, MAX_LOGITS // scores.shape[-1]))
        token = torch.cat([self._choose(scores[part], number[part]) for part in parts])
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)

    def _choose(self, scores: Tensor, number: Tensor) -> Tensor:
        cumulative = torch.softmax(scores.double() / self.temperature, -1).cumsum(-1)
        token = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
        return token.clamp(max=scores.shape[-1] - 1)


class _HeapTrimmer(StoppingCriteria):
    """Ends no row. Gives freed memory back to the system every TRIM_STEPS tokens.

    Each step frees a key-value cache and allocates one that is a little larger, so it does not fit
    where the old one was. Without this, the heap of glibc grew to 18 GiB with a model of 0.5 B.
    """

    def __init__(self) -> None:
        self.n_steps = 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.n_steps += 1
        if self.n_steps % TRIM_STEPS == 0 and input_ids.device.type == "cpu":
            _load_trim()(0)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@cache
def _load_trim() -> Callable[[int], object]:
    """Return `malloc_trim` of glibc; elsewhere a function that does nothing."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    trim: Callable[[int], object] = getattr(library, "malloc_trim", lambda pad: None)
    return trim


class _TextEnd(StoppingCriteria):
    """Ends a row with the first match of `until`, searched only after a token with a line break.

    `lengths` has the number of new tokens of the rows that ended in this way.
    """

    def __init__(self, local: LocalModel, until: re.Pattern[str] | None, width: int) -> None:
        self.tokenizer, self.until, self.width = local.tokenizer, until, width
        self.lengths: dict[int, int] = {}
        self._breaks: dict[int, bool] = {}

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if i not in self.lengths and self._has_break(token):
                new_ids = input_ids[i, self.width :]
                text = str(self.tokenizer.decode(new_ids, skip_special_tokens=True))
                if self.until is not None and self.until.search(text):
                    self.lengths[i] = len(new_ids)
        is_ended = torch.zeros(len(input_ids), dtype=torch.bool)
        is_ended[list(self.lengths)] = True
        return is_ended.to(input_ids.device)

    def _has_break(self, token: int) -> bool:
        if token not in self._breaks:
            self._breaks[token] = "\n" in str(self.tokenizer.decode([token]))
        return self._breaks[token]
