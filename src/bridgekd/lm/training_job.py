"""What one training is, in one value that can be handed to another process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridgekd.lm.load import LocalModel
from bridgekd.lm.reference_model import ReferenceSpec
from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.records import TrainingSequence
from bridgekd.variants import VariantSettings

Validate = Callable[[LocalModel], float]
NLL = VariantSettings(name="nll")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Train `base` on `rows` for `n_updates` optimizer updates and save it into `out`.

    Rows are shuffled for every epoch, and epochs follow without a gap. `validate` (higher is
    better) is called `config.evaluations` times, evenly spaced and at the end; the best weights are
    saved, the earliest of equals; without it the last. Rows longer than `config.max_length`, or
    than the model has positions for, are left out or cut, and counted.

    An `objective` that needs a `reference` model falls back to the negative log-likelihood where
    the vocabularies differ, and the log says so. Without `runtime.micro_batch_tokens` free memory
    limits a micro-batch; `free_bytes` overrides what is measured. Checkpoints go into `workdir`
    (None: a folder in `out` that is removed at the end).
    """

    base: str | Path
    rows: Sequence[TrainingSequence]
    out: Path
    config: TrainOptions
    n_updates: int
    seed: int
    device: str
    revision: str | None = None
    lora: LoraOptions | None = None
    validate: Validate | None = None
    label: str = "train"
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    workdir: Path | None = None
    objective: VariantSettings = NLL
    reference: ReferenceSpec | None = None
    free_bytes: int | None = None

    @property
    def resume_dir(self) -> Path:
        """The folder of the checkpoints."""
        return self.workdir or self.out / "resume"
