"""Checkpoints: the state of a training on disk, from which a killed training resumes.

A checkpoint is the folder that the Trainer writes, plus `checkpoint_state.json`, which holds what
the Trainer does not know. This file is written durably and last: a checkpoint that has it is
complete.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field

from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.recipe import TrainOptions

STATE_FILE = "checkpoint_state.json"
METRICS_FILE = "training_log.jsonl"


class CheckpointState(BaseModel):
    """The progress of the training with this `identity`; `seconds` covers all attempts.

    objective_state: what the objective's schedule keeps. The rollouts are those of this process;
    complete ones are neither empty nor cut off. The last three fields say how an update is split
    into micro-batches. They change when memory runs out.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    identity: str
    update: int = 0
    best_update: int = 0
    validations: list[tuple[int, float]] = Field(default_factory=list)
    seconds: float = 0.0
    objective_state: dict[str, float] = Field(default_factory=dict)
    n_rollouts: int = 0
    n_rollout_tokens: int = 0
    n_complete_rollouts: int = 0
    n_rollouts_since_complete: int = 0
    total_reward: float = 0.0
    micro_tokens: int | None = None
    n_halvings: int = 0
    gradient_checkpointing: bool = False

    def count_evals_without_gain(self) -> int:
        """Return the number of evaluations after the best one."""
        return sum(update > self.best_update for update, _ in self.validations)


def compute_identity(
    rows: Sequence[TokenizedSequence],
    config: TrainOptions,
    n_updates: int,
    seed: int,
    n_processes: int,
    objective: str,
) -> str:
    """Return a hash of everything that a training cannot resume across."""
    digest = hashlib.blake2b(digest_size=16)
    versions = (torch.__version__, transformers.__version__)
    digest.update(repr((config, n_updates, seed, n_processes, objective, versions)).encode())
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def get_best_folder(folder: Path, update: int) -> Path:
    """Return the folder of the weights of this update, which may become the final ones."""
    return folder / f"best-{update}"


def finish_checkpoint(resume_dir: Path, state: CheckpointState, log: Path) -> None:
    """Complete the Trainer's checkpoint of this update, then remove what it replaces."""
    folder = resume_dir / f"checkpoint-{state.update}"
    shutil.copyfile(log, folder / METRICS_FILE)
    for file in (path for path in folder.iterdir() if path.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    write_durably(folder / STATE_FILE, state.model_dump_json())
    kept = {folder, get_best_folder(resume_dir, state.best_update)}
    for old in {*resume_dir.glob("checkpoint-*"), *resume_dir.glob("best-*")} - kept:
        shutil.rmtree(old)


def write_durably(path: Path, text: str) -> None:
    """Write a file that is complete if it exists, also after a power failure."""
    partial = path.with_name(f"{path.name}.writing")
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def find_latest_checkpoint(resume_dir: Path, identity: str) -> tuple[Path, CheckpointState] | None:
    """Return the last complete checkpoint of the training with this identity, and its state."""
    states = [
        (file.parent, CheckpointState.model_validate_json(file.read_text("utf-8")))
        for file in resume_dir.glob(f"checkpoint-*/{STATE_FILE}")
    ]
    own = [(folder, state) for folder, state in states if state.identity == identity]
    return max(own, key=lambda pair: pair[1].update, default=None)
