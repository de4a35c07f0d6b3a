"""Checkpoints: the state of a training on disk, from which a killed training resumes.

A checkpoint is the folder that the Trainer writes, plus `checkpoint_state.json`, which holds what
the Trainer does not know. This file is written durably and last: a checkpoint that has it is
complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers

from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.recipe import TrainOptions

STATE_FILE = "checkpoint_state.json"
METRICS_FILE = "training_log.jsonl"


@dataclass
class CheckpointState:
    """`identity` says which training it is; `seconds` counts all tries so far. The last three are
    how an update is cut into micro-batches by now: they change when memory runs out.
    """

    identity: str
    update: int = 0
    best_update: int = 0
    validations: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    micro_tokens: int | None = None
    n_halvings: int = 0
    gradient_checkpointing: bool = False

    def count_evals_without_gain(self) -> int:
        """Evaluations since the best one."""
        return sum(update > self.best_update for update, _ in self.validations)


def compute_identity(
    rows: Sequence[TokenizedSequence],
    config: TrainOptions,
    n_updates: int,
    seed: int,
    n_processes: int,
    objective: str,
) -> str:
    """Changes with whatever a checkpoint must not be continued across."""
    digest = hashlib.blake2b(digest_size=16)
    versions = (torch.__version__, transformers.__version__)
    digest.update(repr((config, n_updates, seed, n_processes, objective, versions)).encode())
    for row in rows:
        digest.update(repr((row.ids, row.weights)).encode())
    return digest.hexdigest()


def get_best_folder(work: Path, update: int) -> Path:
    """Where the weights of this update wait until it is known whether they stay the best."""
    return work / f"best-{update}"


def finish_checkpoint(work: Path, standing: CheckpointState, metrics: Path) -> None:
    """Makes the Trainer's checkpoint of this update whole, then removes what it replaces."""
    folder = work / f"checkpoint-{standing.update}"
    shutil.copyfile(metrics, folder / METRICS_FILE)
    for file in (p for p in folder.iterdir() if p.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    partial = folder / f"{STATE_FILE}.writing"
    with open(partial, "w", encoding="utf-8") as mark:
        json.dump(asdict(standing), mark)
        mark.flush()
        os.fsync(mark.fileno())
    os.replace(partial, folder / STATE_FILE)
    kept = {folder, get_best_folder(work, standing.best_update)}
    for old in [*work.glob("checkpoint-*"), *work.glob("best-*")]:
        if old not in kept:
            shutil.rmtree(old)


def find_latest_checkpoint(work: Path, identity: str) -> tuple[Path, CheckpointState] | None:
    """The last whole checkpoint of this very training, and where it stood."""
    found = []
    for mark in work.glob(f"checkpoint-*/{STATE_FILE}"):
        told = json.loads(mark.read_text("utf-8"))
        told["validations"] = [(update, value) for update, value in told["validations"]]
        found.append((mark.parent, CheckpointState(**told)))
    own = [each for each in found if each[1].identity == identity]
    return max(own, key=lambda each: each[1].update, default=None)
