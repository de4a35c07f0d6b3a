"""Continuations of prompts, batched by length.

The one idea: an own loop over the model's cache. It leaves out what `model.generate` does at every
step, which for a tiny model costs more than the model, and it drops finished rows out of the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from bridgekd.lm.batches import length_sorted, pad_left, positions
from bridgekd.lm.encode import prompt_ids, stop_ids
from bridgekd.lm.loading import LocalModel, accepted_arguments
from bridgekd.progress import Progress, silent
from bridgekd.records import Message

SHRINK = 8  # finished rows leave the batch once they are one in so many


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
    on_batch: Callable[[list[int], list[str]], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt, in the order of the prompts, stripped of blanks.

    Greedy at temperature 0. Otherwise row i draws from its own stream, seeded by (seed, i), so that
    what it draws does not depend on the batch it is in. A text ends at the end of its turn, at
    end-of-text or after `max_new_tokens`. `on_batch(row numbers, texts)` is called after each
    batch. `known` holds texts by row number that an earlier, cut-off call wrote: a batch that
    stands in it as a whole is not written again; the batches are cut as if it were not there.
    """
    tokenizer = local.tokenizer
    ids = prompt_ids(tokenizer, prompts)
    stop = stop_ids(tokenizer, local.model)
    known = known or {}
    texts = [known.get(i, "") for i in range(len(prompts))]
    n_done = 0
    was_training = local.model.training
    local.model.train(False)
    for batch in length_sorted([len(row) for row in ids], batch_size):
        n_done += len(batch)
        if all(i in known for i in batch):
            continue
        draws = _draws(batch, max_new_tokens, seed, temperature)
        written = continue_ids(
            local,
            [ids[i] for i in batch],
            max_new_tokens,
            stop,
            temperature=temperature,
            draws=draws,
        )
        decoded = tokenizer.batch_decode(written, skip_special_tokens=True)
        for i, text in zip(batch, decoded, strict=True):
            texts[i] = text.strip()
        if on_batch is not None:
            on_batch(batch, [texts[i] for i in batch])
        progress(label, n_done, len(prompts))
    local.model.train(was_training)
    return texts


@torch.inference_mode()
def continue_ids(
    local: LocalModel,
    ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[int],
    *,
    temperature: float = 0.0,
    draws: Tensor | None = None,
) -> list[list[int]]:
    """The new tokens of each row, without the token that stopped it.

    draws [n, max_new_tokens] in [0, 1) are the random numbers of every row and step.
    """
    model: Any = local.model
    extra = accepted_arguments(model, logits_to_keep=1, position_ids=None)
    step_ids, mask = pad_left(ids, int(local.tokenizer.pad_token_id), local.device)
    n = len(ids)
    place = positions(mask)
    stops = torch.tensor(stop, device=local.device)
    cache: Any = DynamicCache(config=model.config)
    alive = torch.arange(n, device=local.device)
    finished = torch.zeros(n, dtype=torch.bool, device=local.device)
    written = torch.full((n, max_new_tokens), stop[0], dtype=torch.long, device=local.device)
    for step in range(max_new_tokens):
        if "position_ids" in extra:
            extra["position_ids"] = place
        logits = model(
            input_ids=step_ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra
        ).logits[:, -1]
        tokens = _choose(logits, temperature, None if draws is None else draws[alive.cpu(), step])
        written[alive, step] = torch.where(finished, stops[0], tokens)
        finished |= torch.isin(tokens, stops)
        n_finished = int(finished.sum())
        if n_finished == len(finished):
            break
        place = place[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if n_finished * SHRINK >= len(finished):
            left = torch.nonzero(~finished)[:, 0]
            cache.reorder_cache(left)
            alive, tokens, place, mask = alive[left], tokens[left], place[left], mask[left]
            finished = finished[left]
        step_ids = tokens[:, None]
    return _until_stop(written.tolist(), set(stop))


def _choose(logits: Tensor, temperature: float, draws: Tensor | None) -> Tensor:
    """Next tokens [n]: the likeliest, or where the cumulated probability passes the draw."""
    if temperature == 0 or draws is None:
        return logits.argmax(-1)
    cumulated = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    drawn = draws.to(logits.device)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, drawn, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _draws(batch: list[int], n_steps: int, seed: int, temperature: float) -> Tensor | None:
    if temperature == 0:
        return None
    return torch.tensor(np.stack([np.random.default_rng([seed, i]).random(n_steps) for i in batch]))


def _until_stop(rows: list[list[int]], stop: set[int]) -> list[list[int]]:
    ends = [next((k for k, token in enumerate(row) if token in stop), len(row)) for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]
