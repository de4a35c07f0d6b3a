"""Which rows every optimiser update sees, and how its rows become micro-batches.

The one idea: the order of all rows over all updates is fixed before the first step, and an update
knows the weight of all its tokens. So the loss is right however an update is cut up: into
micro-batches, over processes, or again after memory ran out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bridgekd.lm.collate import batch_by_max_tokens
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.rng import make_rng


@dataclass(frozen=True, slots=True)
class UpdateShard:
    """What one process does of one update: its rows, longest first, and the weight of the whole
    update over all processes.
    """

    rows: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A micro-batch on its device, n rows of tokens in a rectangle or all rows in one.

    ids [n, width]; mask [n, width], None for rows in one line; positions [1, width] there, else
    None. The logits at `places`, counted through ids row by row, predict `targets` with `weights`,
    all [m]: no other logits are wanted. sequence_ids [m]: the row of each, counted from 0.
    """

    ids: Tensor
    mask: Tensor | None
    positions: Tensor | None
    places: Tensor
    targets: Tensor
    weights: Tensor
    sequence_ids: Tensor


class UpdateSchedule(Dataset[UpdateShard]):
    """All updates in order, each cut into one share a process: item k is share k mod n_processes
    of update k // n_processes.

    Rows are shuffled anew for every pass and passes follow on without a gap. Within an update the
    rows are dealt out by length, so that no process waits long for another.
    """

    def __init__(
        self,
        rows: Sequence[TokenizedSequence],
        *,
        batch_size: int,
        n_updates: int,
        seed: int,
        n_processes: int = 1,
    ) -> None:
        order = shuffle_epochs(len(rows), n_updates * batch_size, seed)
        updates = order.reshape(n_updates, batch_size)
        self.lengths = np.array([len(row.ids) for row in rows])
        by_length = np.argsort(-self.lengths[updates], axis=1, kind="stable")
        self.rows = np.take_along_axis(updates, by_length, axis=1)
        weights = np.array([sum(row.weights) for row in rows])
        counted = np.array([sum(w > 0 for w in row.weights) for row in rows])
        self.weight = weights[self.rows].sum(axis=1)
        self._tokens = self.lengths[self.rows].sum(axis=1)
        self._targets = counted[self.rows].sum(axis=1)
        self.n_processes = n_processes

    def __len__(self) -> int:
        return len(self.rows) * self.n_processes

    def __getitem__(self, index: int) -> UpdateShard:
        update, process = divmod(index, self.n_processes)
        mine = self.rows[update, process :: self.n_processes]
        return UpdateShard(tuple(mine.tolist()), float(self.weight[update]))

    def max_shard_tokens(self) -> int:
        """Return the tokens, padding included, of the largest shard in one micro-batch."""
        n_rows = -(-self.rows.shape[1] // self.n_processes)
        return int(n_rows * self.lengths[self.rows].max())

    def count_tokens_until(self, update: int) -> int:
        """Prompt and target tokens of the updates up to this one, without padding."""
        return int(self._tokens[:update].sum())

    def count_targets_until(self, update: int) -> int:
        """Those of them that are learnt."""
        return int(self._targets[:update].sum())


def shuffle_epochs(n_rows: int, n_wanted: int, seed: int) -> NDArray[np.int64]:
    """Row numbers [n_wanted]: one shuffled pass after the other."""
    rng = make_rng(seed, "shuffle updates")
    passes = [rng.permutation(n_rows) for _ in range(-(-n_wanted // n_rows))]
    return np.concatenate(passes)[:n_wanted]


def split_micro_batches(lengths: Sequence[int], most_tokens: int | None) -> list[list[int]]:
    """Places of rows in micro-batches of at most `most_tokens` tokens with padding; None: all at
    once. A longer row is one of its own.
    """
    if most_tokens is None:
        return [list(range(len(lengths)))] if lengths else []
    return batch_by_max_tokens(lengths, most_tokens)


def pad_batch(rows: Sequence[TokenizedSequence], pad_id: int, device: str) -> MicroBatch:
    """Every row from the left edge, padded on the right. The last token predicts nothing."""
    width = max(len(row.ids) for row in rows) - 1
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids) - 1] = row.ids[:-1]
        mask[i, : len(row.ids) - 1] = 1
    starts = [i * width for i in range(len(rows))]
    return _batch(rows, ids, mask, None, starts, device)


def pack_batch(rows: Sequence[TokenizedSequence], device: str) -> MicroBatch:
    """All rows one behind the other in [1, width], kept apart by positions that start anew."""
    lengths = [len(row.ids) - 1 for row in rows]
    ids = np.concatenate([np.array(row.ids[:-1], dtype=np.int64) for row in rows])
    positions = np.concatenate([np.arange(n) for n in lengths])
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    return _batch(rows, ids[None], None, positions[None], starts, device)


def _batch(
    rows: Sequence[TokenizedSequence],
    ids: NDArray[np.int64],
    mask: NDArray[np.int64] | None,
    positions: NDArray[np.int64] | None,
    starts: Sequence[int],
    device: str,
) -> MicroBatch:
    """Row i's first token lies at starts[i]."""
    weights = [np.array(row.weights[1:], dtype=np.float32) for row in rows]
    counted = [np.flatnonzero(w > 0) for w in weights]
    where = zip(counted, starts, strict=True)
    targets = [np.array(r.ids[1:], dtype=np.int64)[c] for r, c in zip(rows, counted, strict=True)]
    kept = [w[c] for w, c in zip(weights, counted, strict=True)]

    def placed(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return MicroBatch(
        ids=placed(ids),
        mask=None if mask is None else placed(mask),
        positions=None if positions is None else placed(positions),
        places=placed(np.concatenate([c + start for c, start in where])),
        targets=placed(np.concatenate(targets)),
        weights=placed(np.concatenate(kept)),
        sequence_ids=placed(np.repeat(np.arange(len(rows)), [len(c) for c in counted])),
    )
