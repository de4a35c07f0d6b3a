"""Many rows written at once: as rows end, the next ones take their places.

The one idea: an own loop over the model's cache. It leaves out what `model.generate` does at every
step, which for a tiny model costs more than the model; it keeps the batch full, because a step with
half its rows costs nearly as much as one with all; and rows that share a prompt read it once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from bridgekd.lm.batches import pad_left, positions
from bridgekd.lm.caches import Part, joinable, joined, takes_drawn_mask
from bridgekd.lm.loading import LocalModel, accepted_arguments

SHARE = 6  # places are filled, or given up, once they are one in so many
PADDING = 256  # tokens of padding that cost less than another pass over prompts
Asked = tuple[Sequence[int], Sequence[int]]  # (a prompt's tokens, the rows that continue it)


@dataclass(frozen=True, slots=True)
class Writing:
    """How rows are written. draws [rows, max_new_tokens] in [0, 1) are the random numbers of every
    row and step, None is greedy. `over` says after a token that did not stop the row whether it is
    done all the same; `on_end` is told of every row that is.
    """

    max_new_tokens: int
    stop: frozenset[int]
    batch_size: int
    temperature: float = 0.0
    draws: Tensor | None = None
    over: Callable[[list[int]], bool] = lambda tokens: False
    on_end: Callable[[int], None] = lambda row: None


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts that were read in one pass, and the first token of every row that continues one."""

    cache: Any
    width: int
    lengths: Tensor  # [n prompts]
    rows: list[int]
    prompt_of: list[int]  # of every row
    first: Tensor  # [n rows]


@dataclass(slots=True)
class Batch:
    """Rows under way, all ending at the same column; a row that is over is None."""

    cache: Any
    width: int
    lengths: Tensor  # [n], tokens of every row in the cache
    rows: list[int | None]
    last: Tensor  # [n], newest tokens, which the cache does not hold yet
    mask: Tensor  # with columns for every step to come

    def alive(self) -> list[int]:
        """The places whose rows go on."""
        return [k for k, row in enumerate(self.rows) if row is not None]


@dataclass(frozen=True, slots=True)
class Loop:
    """What all steps share: the model and what its kind allows, and what was written so far."""

    local: LocalModel
    writing: Writing
    written: dict[int, list[int]]
    refills: bool
    draws_mask: bool
    takes: frozenset[str]  # of the arguments that families differ in


@torch.inference_mode()
def continue_prompts(
    local: LocalModel, asked: Sequence[Asked], writing: Writing
) -> tuple[dict[int, list[int]], int]:
    """(the new tokens of every row without the one that stopped it, how many prompt tokens were
    read). Never more than `batch_size` rows are under way.

    Where the kind of cache does not let rows join, a new batch starts when one is through.
    """
    takes = accepted_arguments(local.model, logits_to_keep=1, position_ids=None)
    loop = Loop(
        local, writing, {row: [] for _, rows in asked for row in rows},
        joinable(local.model), takes_drawn_mask(local.model), frozenset(takes),
    )  # fmt: skip
    queue = deque(_parts(asked, writing.batch_size))
    batch: Batch | None = None
    n_read = 0
    while queue or batch is not None:
        alive: list[int] = batch.alive() if batch is not None else []
        new = _admitted(queue, len(alive), writing.batch_size) if loop.refills or not alive else []
        if new:
            n_read += sum(len(ids) for ids, _ in new)
            passes = _passes(new) if loop.refills else [new]
            batch = _with(loop, batch, [_read(loop, part) for part in passes])
        elif batch is not None and (len(batch.rows) - len(alive)) * SHARE >= len(batch.rows):
            batch = _with(loop, batch, [])
        if batch is not None:
            _step(loop, batch)
    return loop.written, n_read


def _parts(asked: Sequence[Asked], batch_size: int) -> list[Asked]:
    """Prompts with no more rows than fit into a batch."""
    return [
        (ids, rows[start : start + batch_size])
        for ids, rows in asked
        for start in range(0, len(rows), batch_size)
    ]


def _admitted(queue: deque[Asked], n_alive: int, batch_size: int) -> list[Asked]:
    """The next prompts whose rows all find a place; none while few places are free."""
    free, new = batch_size - n_alive, []
    if free * SHARE < batch_size:
        return []
    while queue and len(queue[0][1]) <= free:
        new.append(queue.popleft())
        free -= len(new[-1][1])
    return new


def _passes(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Neighbours of like length, to be read in one pass: little padding, few passes."""
    passes: list[list[Asked]] = []
    longest = shortest = 0
    for prompt in asked:
        n = len(prompt[0])
        longest, shortest = max(longest, n), min(shortest, n)
        size = len(passes[-1]) + 1 if passes else 0
        if passes and (longest - shortest) * size <= PADDING:
            passes[-1].append(prompt)
        else:
            passes.append([prompt])
            longest = shortest = n
    return passes


def _read(loop: Loop, asked: Sequence[Asked]) -> Prompts:
    """One pass over prompts, and the first token of every row."""
    local = loop.local
    ids, mask = pad_left(
        [prompt for prompt, _ in asked], int(local.tokenizer.pad_token_id), local.device
    )
    config: Any = local.model.config
    cache: Any = DynamicCache(config=config)
    logits = _pass(loop, cache, ids, mask, positions(mask))
    rows = [row for _, rows in asked for row in rows]
    prompt_of = [i for i, (_, rows) in enumerate(asked) for _ in rows]
    if len(rows) > len(asked):
        logits = logits[torch.tensor(prompt_of, device=local.device)]
    return Prompts(cache, ids.shape[1], mask.sum(1), rows, prompt_of, _choose(loop, logits, rows))


def _pass(loop: Loop, cache: Any, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    """The logits [n, vocabulary] behind the last column of ids [n, width]; the cache grows."""
    model: Any = loop.local.model
    extra = {"logits_to_keep": 1, "position_ids": places}
    logits: Tensor = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True,
        **{name: extra[name] for name in loop.takes},
    ).logits  # fmt: skip
    return logits[:, -1]


def _with(loop: Loop, batch: Batch | None, read: Sequence[Prompts]) -> Batch | None:
    """The rows of `batch` that go on, and the new ones; None where nothing is left to do."""
    parts: list[Part] = []
    rows: list[int | None] = []
    lasts, lengths = [], []
    if batch is not None and (alive := batch.alive()):
        places = torch.tensor(alive, device=loop.local.device)
        parts.append((batch.cache, places))
        rows += [batch.rows[k] for k in alive]
        lasts.append(batch.last[places])
        lengths.append(batch.lengths[places])
    for prompts in read:
        ended = _take(loop, prompts.rows, prompts.first.tolist())
        on = [k for k, over in enumerate(ended) if not over]
        if on:
            places = torch.tensor([prompts.prompt_of[k] for k in on], device=loop.local.device)
            parts.append((prompts.cache, places))
            rows += [prompts.rows[k] for k in on]
            lasts.append(prompts.first[torch.tensor(on, device=loop.local.device)])
            lengths.append(prompts.lengths[places])
    if not parts:
        return None
    held = torch.cat(lengths)
    if loop.refills:
        width = int(held.max())
        cache = joined(loop.local.model, parts, width)
    else:
        ((cache, places),) = parts
        cache.reorder_cache(places)
        width = read[0].width if read or batch is None else batch.width
    mask = _mask(loop, width - held, width + loop.writing.max_new_tokens)
    return Batch(cache, width, held, rows, torch.cat(lasts), mask)


def _mask(loop: Loop, starts: Tensor, width: int) -> Tensor:
    """Which columns hold a row's own tokens: [n, width] of 0 and 1, or what attention adds."""
    is_own = torch.arange(width, device=starts.device) >= starts[:, None]
    if not loop.draws_mask:
        return is_own.long()
    drawn = torch.zeros(is_own.shape, dtype=loop.local.model.dtype, device=starts.device)
    return drawn.masked_fill(~is_own, torch.finfo(drawn.dtype).min)[:, None, None]


def _step(loop: Loop, batch: Batch) -> None:
    """One more token of every row."""
    batch.width += 1
    mask = batch.mask[..., : batch.width]
    logits = _pass(loop, batch.cache, batch.last[:, None], mask, batch.lengths[:, None])
    batch.lengths = batch.lengths + 1
    batch.last = _choose(loop, logits, batch.rows)
    ended = _take(loop, batch.rows, batch.last.tolist())
    batch.rows = [None if over else row for row, over in zip(batch.rows, ended, strict=True)]


def _take(loop: Loop, rows: Sequence[int | None], tokens: Sequence[int]) -> list[bool]:
    """Notes the newest token of every row; whether the row is over with it."""
    writing, ended = loop.writing, []
    for row, token in zip(rows, tokens, strict=True):
        over = row is None or token in writing.stop
        if row is not None and not over:
            text = loop.written[row]
            text.append(token)
            over = len(text) >= writing.max_new_tokens or writing.over(text)
        if row is not None and over:
            writing.on_end(row)
        ended.append(over)
    return ended


def _choose(loop: Loop, logits: Tensor, rows: Sequence[int | None]) -> Tensor:
    """Next tokens [n]: the likeliest, or where the cumulated probability passes the draw."""
    temperature, draws = loop.writing.temperature, loop.writing.draws
    if temperature == 0 or draws is None:
        return logits.argmax(-1)
    steps = [0 if row is None else len(loop.written[row]) for row in rows]
    cumulated = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    drawn = draws[[row or 0 for row in rows], steps].to(logits.device)[:, None]
    places = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True)[:, 0]
    return places.clamp(max=logits.shape[-1] - 1)
