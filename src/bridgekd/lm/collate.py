"""Rows of tokens to rectangular tensors."""

from collections.abc import Sequence
from statistics import median_low

import torch
from torch import Tensor


def batch_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of like length, longest first, ties in the given order.

    The batches depend on the lengths and the size alone, so a second run cuts them alike; the
    longest come first, so that memory runs out at once or never.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def batch_by_median_tokens(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of like length and like size in tokens, longest first.

    No batch holds more tokens, padding included, than `batch_size` rows of the median length. So
    there are fewer long rows and more short ones in a batch than `batch_size`, and it never needs
    more memory than `batch_size` of the longest rows would. Like `length_sorted` in everything
    else.
    """
    return batch_by_max_tokens(lengths, batch_size * median_low(lengths)) if lengths else []


def batch_by_max_tokens(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Row numbers in batches of at most `most_tokens` tokens, padding included, longest first.

    A row that is longer than that is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Tensor, Tensor]:
    """(ids, mask), both [n, longest] int64, every row ending at the right edge."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        if row:
            ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Tensor, Tensor]:
    """(ids, mask), both [n, longest] int64, every row starting at the left edge."""
    width = max(map(len, rows))
    ids = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def compute_position_ids(mask: Tensor) -> Tensor:
    """Position of every token within its own row, [n, width]; padding is put at 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
