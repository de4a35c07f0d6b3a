"""What a local model writes: one text of every prompt, or several.

The one idea: the pool is cut into waves that its lengths alone fix, and a wave is written by itself
(`lm.decoding` keeps its batch full). So a call that was cut off and is made again writes whole
waves anew or not at all, and ends with the same bytes.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bridgekd.core.draws import SEED_STEP
from bridgekd.core.throughput import Throughput
from bridgekd.lm.batches import length_sorted
from bridgekd.lm.decoding import Asked, Writing, continue_prompts
from bridgekd.lm.encode import prompt_ids, stop_ids
from bridgekd.lm.forward import evaluating
from bridgekd.lm.loading import LocalModel, check_room
from bridgekd.progress import Progress, silent
from bridgekd.records import Message

WAVE = (
    16  # batches in a wave; its end, where no row is left to fill the batch, costs about half one
)
OnBatch = Callable[[list[int], list[str]], None]


def generate(
    local: LocalModel,
    prompts: Sequence[tuple[Message, ...]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = silent,
    label: str = "generate",
    known: Mapping[int, str] | None = None,
    on_batch: OnBatch | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[str]:
    """What the model writes after each prompt, in the order of the prompts, stripped of blanks.

    Greedy at temperature 0. Otherwise row i draws from its own stream, seeded by (seed, i), so that
    what it draws does not depend on the batch it is in. A text ends at the end of its turn, at
    end-of-text, after `max_new_tokens`, or with the first match of `until`, which has to end in a
    line break. `batch_size` rows are written at one time. `on_batch(row numbers, texts)` is called
    after each wave of WAVE batches. `known` holds texts by row number that an earlier, cut-off call
    wrote: a wave that stands in it as a whole is not written again; the waves are cut as if it were
    not there. `throughput` is added to.
    """

    def told(rows: list[int], texts: list[tuple[str, ...]]) -> None:
        if on_batch is not None:
            on_batch(rows, [own[0] for own in texts])

    drawn = sample(
        local, prompts, 1,
        max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature, seed=seed,
        progress=progress, label=label, known={i: (text,) for i, text in (known or {}).items()},
        on_batch=told, until=until, throughput=throughput,
    )  # fmt: skip
    return [texts[0] for texts in drawn]


def sample(
    local: LocalModel,
    prompts: Sequence[tuple[Message, ...]],
    n: int,
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int = 0,
    progress: Progress = silent,
    label: str = "sample",
    known: Mapping[int, Sequence[str]] | None = None,
    on_batch: Callable[[list[int], list[tuple[str, ...]]], None] | None = None,
    until: re.Pattern[str] | None = None,
    throughput: Throughput | None = None,
) -> list[tuple[str, ...]]:
    """`n` texts of every prompt. Text k is the one that `generate` draws with the seed
    `seed + k * SEED_STEP`; a prompt is read once for all of its texts. The rest is as there. Raises
    BadInput where a text may pass the model's table of positions.
    """
    ids = prompt_ids(local.tokenizer, prompts)
    check_room(local, max(map(len, ids), default=0) + max_new_tokens)
    known = known or {}
    texts = [tuple(known.get(i, ())) for i in range(len(ids))]
    n_before = n_ended = n_rows = 0
    if len(known) < len(ids):
        progress(label, len(known), len(ids))

    def on_end(row: int) -> None:
        nonlocal n_ended
        n_ended += 1
        if n_ended % n == 0 and n_ended < n_rows:
            progress(label, n_before + n_ended // n, len(ids))

    with evaluating(local.model):
        for wave in length_sorted([len(row) for row in ids], max(1, WAVE * batch_size // n)):
            if not all(i in known for i in wave):
                rows = [(i, k) for i in wave for k in range(n)]
                n_rows = len(rows)
                writing = Writing(
                    max_new_tokens, frozenset(stop_ids(local.tokenizer, local.model)), batch_size,
                    temperature, _draws(rows, max_new_tokens, seed, temperature),
                    _is_over(local, until), on_end,
                )  # fmt: skip
                asked = [(ids[i], range(p * n, (p + 1) * n)) for p, i in enumerate(wave)]
                written = _written(local, asked, writing, until, throughput)
                for p, i in enumerate(wave):
                    texts[i] = tuple(written[p * n : (p + 1) * n])
                if on_batch is not None:
                    on_batch(wave, [texts[i] for i in wave])
                progress(label, n_before + len(wave), len(ids))
            n_before, n_ended = n_before + len(wave), 0
    return texts


def continue_ids(
    local: LocalModel, ids: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[int]
) -> list[list[int]]:
    """The new tokens of each row, greedy, without the token that stopped it; all rows at once."""
    check_room(local, max(map(len, ids), default=0) + max_new_tokens)
    writing = Writing(max_new_tokens, frozenset(stop), max(1, len(ids)))
    with evaluating(local.model):
        written, _ = continue_prompts(local, [(row, [i]) for i, row in enumerate(ids)], writing)
    return [written[i] for i in range(len(ids))]


def _written(
    local: LocalModel,
    asked: Sequence[Asked],
    writing: Writing,
    until: re.Pattern[str] | None,
    throughput: Throughput | None,
) -> list[str]:
    """The texts of one wave, by row."""
    started = time.monotonic()
    written, n_read = continue_prompts(local, asked, writing)
    texts = local.tokenizer.batch_decode(
        [written[row] for row in range(len(written))], skip_special_tokens=True
    )
    if throughput is not None:
        throughput.add(
            n_texts=len(texts),
            n_prompt_tokens=n_read,
            n_generated_tokens=sum(map(len, written.values())),
            seconds=time.monotonic() - started,
        )
    ends = [until.search(text) if until else None for text in texts]
    return [(text[: e.end()] if e else text).strip() for text, e in zip(texts, ends, strict=True)]


def _is_over(local: LocalModel, until: re.Pattern[str] | None) -> Callable[[list[int]], bool]:
    """Whether a row's text holds `until`, looked for only behind tokens that hold a line break."""
    if until is None:
        return lambda tokens: False
    breaks: dict[int, bool] = {}

    def over(tokens: list[int]) -> bool:
        newest = tokens[-1]
        if newest not in breaks:
            breaks[newest] = "\n" in local.tokenizer.decode([newest])
        if not breaks[newest]:
            return False
        text = str(local.tokenizer.decode(tokens, skip_special_tokens=True))
        return until.search(text) is not None

    return over


def _draws(
    rows: Sequence[tuple[int, int]], n_steps: int, seed: int, temperature: float
) -> Tensor | None:
    """Random numbers [rows, n_steps] of rows given as (prompt, sample)."""
    if temperature == 0:
        return None
    streams = [np.random.default_rng([seed + SEED_STEP * k, i]) for i, k in rows]
    return torch.tensor(np.stack([stream.random(n_steps) for stream in streams]))
