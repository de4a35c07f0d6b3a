"""Rows of tokens to rectangular tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def length_sorted(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of like length, longest first, ties in the given order.

    The batches depend on the lengths and the size alone, so a second run cuts them alike; the
    longest come first, so that memory runs out at once or never.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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


def positions(mask: Tensor) -> Tensor:
    """Position of every token within its own row, [n, width]; padding is put at 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
