"""Batches of rows of tokens, and their padded tensors."""

from collections.abc import Sequence
from statistics import median_low
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def batch_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return row numbers in batches of similar length, longest first; ties keep their order.

    The batches depend on the lengths and the size only, so a resumed run has the same batches. The
    longest rows come first, so that a batch that is too large for memory fails at once.
    >>> batch_by_length([3, 1, 2], batch_size=2)
    [[0, 2], [1]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def batch_by_median_tokens(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return row numbers in batches with at most the tokens of `batch_size` median rows.

    The tokens include padding. So long rows form smaller batches and short rows form larger ones,
    and no batch needs more memory than `batch_size` of the longest rows.
    """
    return batch_by_max_tokens(lengths, batch_size * median_low(lengths)) if lengths else []


def batch_by_max_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return row numbers in batches of at most `max_tokens` tokens with padding, longest first.

    A longer row is a batch of its own.
    >>> batch_by_max_tokens([3, 1, 2, 9], max_tokens=6)
    [[3], [0, 2], [1]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def batch_packed_rows(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return row numbers in batches of about the same number of tokens, at most `max_tokens`.

    The longest row raises a smaller limit to its length. The batches are few: the next longest row
    goes to the batch with the fewest tokens, and there is one batch more if one does not fit.
    >>> batch_packed_rows([3, 1, 2, 2], max_tokens=4)
    [[0, 1], [2, 3]]
    """
    limit = max(max_tokens, *lengths)
    n_batches = -(-sum(lengths) // limit)
    while True:
        batches: list[list[int]] = [[] for _ in range(n_batches)]
        totals = [0] * n_batches
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            shortest = totals.index(min(totals))
            batches[shortest].append(i)
            totals[shortest] += lengths[i]
        if max(totals) <= limit:
            return batches
        n_batches += 1


def pad_rows(
    rows: Sequence[Sequence[int]], pad_id: int, device: str, *, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """Return (ids, attention mask) of the rows, both [n, max_length] int64, padded on `side`."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    padded = pad_sequence(ids, batch_first=True, padding_value=pad_id, padding_side=side)
    ones = [torch.ones_like(row) for row in ids]
    return padded.to(device), pad_sequence(ones, batch_first=True, padding_side=side).to(device)
