"""The rows of every optimizer update, and the tensors of a micro-batch.

The order of all rows over all updates is fixed before the first update, and an update knows the
positive weight of all its tokens. So the loss is correct for every split of an update: into
micro-batches, over processes, or again after memory ran out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bridgekd.lm.collate import pad_rows
from bridgekd.lm.orders import ORDERS
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.training_job import SHUFFLED
from bridgekd.rng import make_rng
from bridgekd.variants import VariantSettings

MAX_SEGMENTS = 2**32  # of one row


@dataclass(frozen=True, slots=True)
class UpdateShard:
    """The rows of one process in one update, longest first, and the weight of the whole update: the
    sum of its positive token weights.
    """

    rows: tuple[int, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A micro-batch on its device: n padded rows, or all rows packed into one.

    ids: [n, width]. mask: [n, width]; None for packed rows. position_ids: [1, width]; None for
    padded rows. cu_seq_lens: [n + 1] int32, where packed rows start and end; None for padded rows.
    The logits at `positions` of the flattened ids predict `targets` with `weights`, all [m].
    sequence_ids: [m], the row of each target. is_rollout: [m], whether the model wrote it itself.
    advantages: [m] float32, of its reward. segment_ids: [m] int64 ascending, the same number for
    the tokens of one segment of one row. reference_logprobs: [m], of the segment of each target;
    None without them.
    """

    ids: Tensor
    mask: Tensor | None
    position_ids: Tensor | None
    cu_seq_lens: Tensor | None
    positions: Tensor
    targets: Tensor
    weights: Tensor
    sequence_ids: Tensor
    is_rollout: Tensor
    advantages: Tensor
    segment_ids: Tensor
    reference_logprobs: Tensor | None

    @property
    def forward_arguments(self) -> dict[str, object]:
        """The arguments of a forward pass over this batch."""
        arguments: dict[str, object] = {
            "input_ids": self.ids, "attention_mask": self.mask, "use_cache": False,
        }  # fmt: skip
        if self.position_ids is not None:
            arguments["position_ids"] = self.position_ids
            arguments["cu_seq_lens_q"] = self.cu_seq_lens
        return arguments


class UpdateSchedule(Dataset[UpdateShard]):
    """All updates in order, each split into one shard per process.

    Item k is shard k mod n_processes of update k // n_processes. A unit is a row, or all rows of
    one group; groups[i] names that of row i, and "" is none. An update has `batch_size` units.
    `order` arranges the units of every epoch, and updates may cross epochs; the first one follows
    `n_updates_before` of other parts of the training. The rows of an update are dealt out by
    length, so that no process waits long for another.
    """

    def __init__(
        self,
        rows: Sequence[TokenizedSequence],
        *,
        batch_size: int,
        n_updates: int,
        seed: int,
        order: VariantSettings = SHUFFLED,
        groups: Sequence[str] | None = None,
        n_processes: int = 1,
        n_updates_before: int = 0,
    ) -> None:
        self.units = build_units(groups or [""] * len(rows))
        self._members = np.concatenate(self.units)
        self._starts = np.cumsum([0, *(len(unit) for unit in self.units[:-1])])
        self.lengths = np.array([len(row.ids) for row in rows])
        self.weights = np.array([sum(max(w, 0.0) for w in row.weights) for row in rows])
        self.n_targets = np.array([sum(w != 0 for w in row.weights) for row in rows])
        self.n_processes = n_processes
        unit_lengths = self._reduce(np.add, self.n_targets)
        n_all = n_updates_before + n_updates
        units = arrange_epochs(unit_lengths, n_all * batch_size, seed, order)
        self.updates = units.reshape(n_all, batch_size)[n_updates_before:]

    def __len__(self) -> int:
        return len(self.updates) * self.n_processes

    def __getitem__(self, index: int) -> UpdateShard:
        update, process = divmod(index, self.n_processes)
        rows = self.get_rows(update)
        own = rows[process :: self.n_processes]
        return UpdateShard(tuple(own.tolist()), float(self.weights[rows].sum()))

    def get_rows(self, update: int) -> NDArray[np.int64]:
        """Return the row numbers of an update, longest first. Process p has every n-th from p."""
        rows = np.array([row for unit in self.updates[update] for row in self.units[unit]])
        longest_first: NDArray[np.int64] = rows[np.argsort(-self.lengths[rows], kind="stable")]
        return longest_first

    def count_max_shard_tokens(self, max_length: int) -> int:
        """Return the tokens, padding included, of the largest shard in one micro-batch.

        max_length: the tokens of the longest row.
        """
        n_rows = self._reduce(np.add, np.ones_like(self.lengths))[self.updates].sum(axis=1).max()
        return int(-(-n_rows // self.n_processes) * max_length)

    def count_tokens_until(self, update: int) -> int:
        """Return the prompt and target tokens of the first updates, without padding."""
        n_tokens = self._reduce(np.add, self.lengths)
        return int(n_tokens[self.updates[:update]].sum())

    def count_targets_until(self, update: int) -> int:
        """Return the tokens of the first updates that have a loss."""
        n_targets = self._reduce(np.add, self.n_targets)
        return int(n_targets[self.updates[:update]].sum())

    def _reduce(self, ufunc: np.ufunc, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a sum or maximum [n_units] of the rows' values over the rows of every unit."""
        reduced: NDArray[np.int64] = ufunc.reduceat(values[self._members], self._starts)
        return reduced


def build_units(groups: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the row numbers of every unit, in the order of its first row.

    >>> build_units(["a", "", "a", ""])
    [(0, 2), (1,), (3,)]
    """
    units: dict[str | int, list[int]] = {}
    for i, name in enumerate(groups):
        units.setdefault(name or i, []).append(i)
    return [tuple(unit) for unit in units.values()]


def arrange_epochs(
    lengths: NDArray[np.int64], n_samples: int, seed: int, order: VariantSettings = SHUFFLED
) -> NDArray[np.int64]:
    """Return row numbers [n_samples]: epochs in this order, one after the other."""
    rng, arrange = make_rng(seed, "shuffle updates"), ORDERS.load(order).arrange
    options, n_epochs = ORDERS.parse_options(order), -(-n_samples // len(lengths))
    epochs = [arrange(lengths, rng, options) for _ in range(n_epochs)]
    return np.concatenate(epochs)[:n_samples]


def pad_batch(rows: Sequence[TokenizedSequence], pad_id: int, device: str) -> MicroBatch:
    """Return the rows padded on the right. The last token of a row predicts nothing."""
    ids, mask = pad_rows([row.ids[:-1] for row in rows], pad_id, device, side="right")
    starts = [i * ids.shape[1] for i in range(len(rows))]
    return _build_batch(rows, ids, mask, None, None, starts)


def pack_batch(rows: Sequence[TokenizedSequence], device: str) -> MicroBatch:
    """Return all rows in [1, width]; position ids that restart at 0 separate them."""
    lengths = [len(row.ids) - 1 for row in rows]
    ids = torch.tensor([[token for row in rows for token in row.ids[:-1]]], device=device)
    position_ids = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
    ends = np.cumsum([0, *lengths])
    cu_seq_lens = torch.tensor(ends, dtype=torch.int32, device=device)
    return _build_batch(rows, ids, None, position_ids, cu_seq_lens, ends[:-1].tolist())


def _build_batch(
    rows: Sequence[TokenizedSequence],
    ids: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    cu_seq_lens: Tensor | None,
    starts: Sequence[int],
) -> MicroBatch:
    """Return a micro-batch in which the first token of row i is at starts[i]."""
    weights = [np.array(row.weights[1:], dtype=np.float32) for row in rows]
    counted = [np.flatnonzero(w) for w in weights]
    targets = [
        np.array(row.ids[1:], dtype=np.int64)[c] for row, c in zip(rows, counted, strict=True)
    ]
    positions = [c + start for c, start in zip(counted, starts, strict=True)]
    kept = [w[c] for w, c in zip(weights, counted, strict=True)]
    sequence_ids = np.repeat(np.arange(len(rows)), [len(c) for c in counted])
    is_rollout = np.array([row.is_rollout for row in rows])[sequence_ids]
    advantages = np.array([row.advantage for row in rows], dtype=np.float32)[sequence_ids]

    # The target of logits k is token k + 1.
    of_target = [c + 1 - row.n_prompt for row, c in zip(rows, counted, strict=True)]
    segments = np.concatenate([
        np.array(row.segments, dtype=np.int64)[k] if row.segments else k.astype(np.int64)
        for row, k in zip(rows, of_target, strict=True)
    ])  # fmt: skip
    logprobs = None
    if any(row.reference_logprobs for row in rows):
        pairs = zip(rows, of_target, strict=True)
        logprobs = [np.array(row.reference_logprobs, dtype=np.float32)[k] for row, k in pairs]

    def to_tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(ids.device)

    return MicroBatch(
        ids, mask, position_ids, cu_seq_lens, to_tensor(np.concatenate(positions)),
        to_tensor(np.concatenate(targets)), to_tensor(np.concatenate(kept)),
        to_tensor(sequence_ids), to_tensor(is_rollout), to_tensor(advantages),
        to_tensor(sequence_ids * MAX_SEGMENTS + segments),
        None if logprobs is None else to_tensor(np.concatenate(logprobs)),
    )  # fmt: skip
