"""What a training gets and what it reports. This module imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from bridgekd.recipe import LoraOptions, RuntimeOptions, TrainOptions
from bridgekd.records import TrainingSequence
from bridgekd.variants import VariantSettings

if TYPE_CHECKING:
    from bridgekd.lm.load import LocalModel

Reward = Callable[[str, str], float]  # the id of a row, and a text of the model's own
Validate = Callable[["LocalModel", int], float]  # the model, tokens of the longest target
NLL = VariantSettings(name="nll")
SHUFFLED = VariantSettings(name="shuffled")


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """A reference model as a folder or a Hub id."""

    model: str | Path
    revision: str | None


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Train `base` on `rows` for `n_updates` optimizer updates and save it in `output_dir`.

    Rows are shuffled for every epoch, and updates may cross epochs. A group of rows counts as one.
    `validate` (higher is better) is called `config.n_evaluations` times, evenly spaced, the last
    time at the end. The best weights are saved, the earliest if several are equal. Without
    `validate` the last weights are saved. Rows longer than `config.max_length`, or than the model
    has positions for, are dropped or truncated, and counted. A group that loses all its positive
    rows is dropped.

    A `reference` model must split every target into the same tokens. Without
    `runtime.micro_batch_tokens`, free memory limits a micro-batch; `free_bytes` overrides the
    measured value. Checkpoints are in `workdir` (None: a folder in `output_dir` that is removed at
    the end). `n_updates_before`: of the parts of the same training before this one, whose order of
    rows goes on. `reward` is for objectives that learn from rewards. A text that the model writes
    itself has at most `max_rollout_tokens`; None: as many as the longest target.
    """

    base: str | Path
    rows: Sequence[TrainingSequence]
    output_dir: Path
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
    order: VariantSettings = SHUFFLED
    reference: ReferenceSpec | None = None
    free_bytes: int | None = None
    n_updates_before: int = 0
    reward: Reward | None = None
    max_rollout_tokens: int | None = None

    @property
    def resume_dir(self) -> Path:
        """The folder of the checkpoints."""
        return self.workdir or self.output_dir / "resume"


class TrainingLog(BaseModel):
    """What a training did. It used `n_rows`, dropped `n_too_long` and shortened `n_truncated` rows.

    `n_tokens` counts prompt and target tokens over all updates, without padding; `n_target_tokens`
    counts the tokens with a loss. `validations` has (update, value) pairs. `best_update` is the
    update whose weights were saved. `seconds` covers all attempts of a training that resumed at
    update `resumed_at`; `tokens_per_s` covers the last attempt only. `micro_tokens` and
    `gradient_checkpointing` are the final values. `n_halvings` counts how often memory ran out.
    `max_target_tokens` is the length of the longest target. Of the `n_rollouts` targets that the
    model wrote itself, with `n_rollout_tokens`, `n_complete_rollouts` are neither empty nor cut
    off; `total_reward` is the sum of their rewards. Each process counts its own.
    """

    model_config = ConfigDict(frozen=True)

    n_rows: int
    n_too_long: int
    n_truncated: int
    n_tokens: int
    n_target_tokens: int
    n_updates: int
    best_update: int
    validations: tuple[tuple[int, float], ...]
    seconds: float
    tokens_per_s: float
    resumed_at: int
    micro_tokens: int | None
    n_halvings: int
    gradient_checkpointing: bool
    padding_free: bool
    n_processes: int
    max_target_tokens: int = 0
    n_rollouts: int = 0
    n_rollout_tokens: int = 0
    n_complete_rollouts: int = 0
    total_reward: float = 0.0
