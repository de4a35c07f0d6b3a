"""What one training is, in one thing that can be handed to another process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridgekd.config import Lora, Machine, Train
from bridgekd.lm.loading import LocalModel
from bridgekd.lm.reference_model import ReferenceSpec
from bridgekd.records import TrainRow
from bridgekd.variants import VariantRef

Validate = Callable[[LocalModel], float]


@dataclass(frozen=True, slots=True)
class Task:
    """The arguments of `fine_tune`. `work` holds what is needed to go on; it goes when done."""

    base: str | Path
    rows: Sequence[TrainRow]
    out: Path
    config: Train
    n_updates: int
    seed: int
    device: str
    revision: str | None
    lora: Lora | None
    validate: Validate | None
    label: str
    machine: Machine
    work: Path
    objective: VariantRef
    reference: ReferenceSpec | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """What a training did. `n_rows` were trained on; `n_too_long` were left out, `n_cut` shortened.

    `n_tokens` counts prompt and target tokens, `n_target_tokens` those that are learnt, without
    padding, over all updates. `validations` holds (update, value) pairs; `best_update` is the
    update whose weights were saved. `seconds` counts every try of a training that was resumed at
    update `resumed_at`, `tokens_per_s` the last try alone. The rest says how updates were cut up in
    the end, and how often memory ran out on the way.
    """

    n_rows: int
    n_too_long: int
    n_cut: int
    n_tokens: int
    n_target_tokens: int
    n_updates: int
    best_update: int
    validations: tuple[tuple[int, float], ...]
    seconds: float
    tokens_per_s: float
    resumed_at: int
    micro_tokens: int | None
    n_halved: int
    gradient_checkpointing: bool
    padding_free: bool
    n_processes: int
    with_mentor: bool = False  # whether the objective had the logits of a reference model
