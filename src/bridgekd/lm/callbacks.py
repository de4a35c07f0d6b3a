"""Beside a training: progress, evaluations, the best weights, the log, when to write a checkpoint.

Of several processes the first one does all of this; the others only hear when to save or to stop.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState

from bridgekd.lm.checkpoint import METRICS_FILE, CheckpointState, finish_checkpoint, get_best_folder
from bridgekd.lm.load import LocalModel, save_model
from bridgekd.lm.training_job import Validate


class TrainingMonitor(TrainerCallback):
    """`validate` (higher is better) is asked after `evaluation_updates`; `tell(update, of)` is
    called at the start and after every update. Keeps `standing` true. `work` is for what is needed
    to go on, `out` for the log.
    """

    def __init__(
        self,
        local: LocalModel,
        work: Path,
        out: Path,
        standing: CheckpointState,
        *,
        validate: Validate | None,
        evaluation_updates: frozenset[int],
        patience: int | None,
        checkpoint_s: float,
        tell: Callable[[int, int], None],
    ) -> None:
        self.local, self.work, self.metrics = local, work, out / METRICS_FILE
        self.standing, self.validate = standing, validate
        self.evaluation_updates, self.patience = evaluation_updates, patience
        self.checkpoint_s, self.tell = checkpoint_s, tell
        self.saved_at = time.monotonic()
        self.started = self.saved_at - standing.seconds

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if is_main_process():
            self.tell(self.standing.update, state.max_steps)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        update = self.standing.update = state.global_step
        if update == state.max_steps:
            control.should_log = True
        if self.validate is not None and update in self.evaluation_updates:
            control.should_log = True
            self._evaluate(update, self.validate)
            gone_by = self.standing.count_evals_without_gain()
            control.should_training_stop |= self.patience is not None and gone_by >= self.patience
        # After the evaluation, whose time is part of the rate.
        if is_main_process():
            self.tell(update, update if control.should_training_stop else state.max_steps)
        # A checkpoint between two lines of the log would lose a part of the mean loss.
        logs = control.should_log or update % args.logging_steps == 0
        if logs and update < state.max_steps:
            control.should_save = self._is_time_to_save()

    def _evaluate(self, update: int, validate: Validate) -> None:
        value = 0.0
        if is_main_process():
            model = self.local.model
            model.train(False)
            value = float(validate(self.local))
            model.train()
        value = broadcast_from_main(value, self.local.device)
        best = max((v for _, v in self.standing.validations), default=float("-inf"))
        if value > best or not self.standing.validations:
            self.standing.best_update = update
            if is_main_process():
                save_model(self.local, get_best_folder(self.work, update))
        self.standing.validations.append((update, value))

    def _is_time_to_save(self) -> bool:
        due = time.monotonic() - self.saved_at >= self.checkpoint_s
        return bool(broadcast_from_main(float(due), self.local.device))

    def finish_checkpoint(self) -> None:
        """After the Trainer has written its own part of a checkpoint."""
        if dist.is_initialized():
            dist.barrier()  # the other processes' random states belong to it
        self.saved_at = time.monotonic()
        self.standing.seconds = self.saved_at - self.started
        if is_main_process():
            finish_checkpoint(self.work, self.standing, self.metrics)

    def begin(self, checkpoint: Path | None) -> None:
        """The log as it stood at the checkpoint; empty without one."""
        if not is_main_process():
            return
        if checkpoint is None:
            self.metrics.write_text("", "utf-8")
        else:
            shutil.copyfile(checkpoint / METRICS_FILE, self.metrics)

    def write(self, update: int, logs: Mapping[str, float]) -> None:
        """One line of training_log.jsonl; `validation` is null where nothing was asked."""
        if not is_main_process():
            return
        line = {
            "update": update,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(time.monotonic() - self.started, 3),
            "validation": dict(self.standing.validations).get(update),
        }
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def is_main_process() -> bool:
    """Whether this is the only process or the first of several."""
    return not dist.is_initialized() or dist.get_rank() == 0


def broadcast_from_main(value: float, device: str) -> float:
    """The first process's value, in all of them."""
    if not dist.is_initialized():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(told, src=0)
    return float(told)
