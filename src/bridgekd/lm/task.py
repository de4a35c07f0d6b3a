"""What one training is, in one thing that can be handed to another process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridgekd.config import Lora, RuntimeOptions, Train
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
    runtime: RuntimeOptions
    work: Path
    objective: VariantRef
    reference: ReferenceSpec | None = None
    free_bytes: int | None = None
