"""What happens around the updates of a training: progress, evaluations, best weights, the log.

With several processes, only the first one does this work. The others receive when to save or stop.
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
from bridgekd.lm.load import LocalModel, save_model, uses_bfloat16
from bridgekd.lm.training_job import TrainingJob, Validate


class TrainingMonitor(TrainerCallback):
    """Keeps `checkpoint_state` up to date, evaluates, saves the best weights, and writes the log.

    It calls `report(update, total)` at the start and after every update.
    """

    def __init__(
        self,
        local: LocalModel,
        job: TrainingJob,
        longest_target: int,
        checkpoint_state: CheckpointState,
        report: Callable[[int, int], None],
    ) -> None:
        self.local, self.job, self.longest_target = local, job, longest_target
        self.checkpoint_state, self.report = checkpoint_state, report
        self.log_file = job.output_dir / METRICS_FILE
        n = job.config.n_evaluations
        self.evaluation_updates = {max(1, round(job.n_updates * i / n)) for i in range(1, n + 1)}
        self.saved_at = time.monotonic()
        self.started = self.saved_at - checkpoint_state.seconds
        self._rewarded = (checkpoint_state.n_rollouts, checkpoint_state.total_reward)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if is_main_process():
            self.report(self.checkpoint_state.update, state.max_steps)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        update = self.checkpoint_state.update = state.global_step
        if update == state.max_steps:
            control.should_log = True
        if self.job.validate is not None and update in self.evaluation_updates:
            control.should_log = True
            self._evaluate(update, self.job.validate)
            patience = self.job.config.early_stopping_patience
            n_without_gain = self.checkpoint_state.count_evals_without_gain()
            control.should_training_stop |= patience is not None and n_without_gain >= patience
        # Report after the evaluation: its time is part of the rate.
        if is_main_process():
            self.report(update, update if control.should_training_stop else state.max_steps)
        # A checkpoint between two lines of the log would lose a part of the mean loss.
        is_logged = control.should_log or update % args.logging_steps == 0
        if is_logged and update < state.max_steps:
            control.should_save = self._is_time_to_save()

    def _evaluate(self, update: int, validate: Validate) -> None:
        state, value = self.checkpoint_state, 0.0
        if is_main_process():
            model = self.local.model
            model.train(False)
            device = torch.device(self.local.device).type
            enabled = uses_bfloat16(device, self.job.runtime.precision)
            with torch.autocast(device, torch.bfloat16, enabled=enabled):
                value = float(validate(self.local, self.longest_target))
            model.train()
        value = broadcast_from_main(value, self.local.device)
        best = max((v for _, v in state.validations), default=float("-inf"))
        if value > best or not state.validations:
            state.best_update = update
            if is_main_process():
                save_model(self.local, get_best_folder(self.job.resume_dir, update))
        state.validations.append((update, value))

    def _is_time_to_save(self) -> bool:
        is_due = time.monotonic() - self.saved_at >= self.job.runtime.checkpoint_interval_s
        return bool(broadcast_from_main(float(is_due), self.local.device))

    def finish_checkpoint(self) -> None:
        """Complete a checkpoint after the Trainer wrote its own part."""
        if dist.is_initialized():
            dist.barrier()  # the random states of the other processes are part of it
        self.saved_at = time.monotonic()
        self.checkpoint_state.seconds = self.saved_at - self.started
        if is_main_process():
            finish_checkpoint(self.job.resume_dir, self.checkpoint_state, self.log_file)

    def begin_log(self, checkpoint: Path | None) -> None:
        """Restore the log of the checkpoint; without one, start an empty log."""
        if not is_main_process():
            return
        if checkpoint is None:
            self.log_file.write_text("", "utf-8")
        else:
            shutil.copyfile(checkpoint / METRICS_FILE, self.log_file)

    def write_log(self, update: int, logs: Mapping[str, float]) -> None:
        """Append one line to the log; `validation` is null for an update without evaluation.

        `reward` is the mean reward of the rollouts since the line before.
        """
        if not is_main_process():
            return
        state, (n_before, total_before) = self.checkpoint_state, self._rewarded
        self._rewarded = (state.n_rollouts, state.total_reward)
        line = {
            "update": update,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(time.monotonic() - self.started, 3),
            "validation": dict(state.validations).get(update),
        }
        if self.job.reward is not None and state.n_rollouts > n_before:
            line["reward"] = (state.total_reward - total_before) / (state.n_rollouts - n_before)
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def is_main_process() -> bool:
    """Return whether this is the only process or the first of several."""
    return not dist.is_initialized() or dist.get_rank() == 0


def broadcast_from_main(value: float, device: str) -> float:
    """Return the value of the first process, in all processes."""
    if not dist.is_initialized():
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(tensor, src=0)
    return float(tensor)
