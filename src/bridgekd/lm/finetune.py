"""One training loop for every training: warm-up, assistant, instruction, student.

The one idea: the order of all rows over all updates is fixed before the first step. Each item of
the data set is then one finished micro-batch that knows the weight of its whole effective batch, so
the loss is right under accumulation and the Trainer only walks through the list.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from bridgekd.config import Lora, Train
from bridgekd.errors import BadInput
from bridgekd.lm.encode import Encoded, encode_rows
from bridgekd.lm.loading import (
    LocalModel,
    accepted_arguments,
    load,
    max_positions,
    resolve_device,
    save,
)
from bridgekd.lm.losses import weighted_nll
from bridgekd.progress import Progress, silent
from bridgekd.records import TrainRow

MAX_GRAD_NORM = 1.0
N_LOG_LINES = 100  # about so many lines of metrics.jsonl per training
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
Validate = Callable[[LocalModel], float]


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """What a training did. `n_rows` were trained on, `n_too_long` were left out.

    `n_tokens` counts prompt and target tokens, without padding, over all updates. `validations`
    holds (update, value) pairs; `best_update` is the update whose weights were saved.
    """

    n_rows: int
    n_too_long: int
    n_tokens: int
    n_updates: int
    best_update: int
    validations: tuple[tuple[int, float], ...]
    seconds: float
    micro_batch: int


def fine_tune(
    base: str | Path,
    rows: Sequence[TrainRow],
    out: Path,
    config: Train,
    *,
    n_updates: int,
    seed: int,
    device: str,
    revision: str | None = None,
    lora: Lora | None = None,
    validate: Validate | None = None,
    progress: Progress = silent,
    label: str = "train",
) -> TrainingLog:
    """Trains `base` on `rows` for exactly `n_updates` optimiser updates and saves it into `out`.

    Rows are shuffled anew for every pass and passes follow on without a gap. `validate` (higher is
    better) is asked `config.evaluations` times, evenly spaced and at the end; the best weights are
    the ones saved, the earliest of equals; without it the last. Rows of more tokens than
    `config.max_length`, or than the model has positions for, are left out and counted.
    `config.micro_batch` is lowered to a divisor of the batch. Logged steps go to
    `<out>/metrics.jsonl`. Same arguments, same CPU: same bytes. Raises BadInput if no row is left.
    """
    started = time.monotonic()
    torch.manual_seed(seed)  # LoRA's first weights
    local = load(base, device=resolve_device(device), revision=revision, trainable=True, lora=lora)
    encoded, n_too_long = _fitting(local, rows, config, label)
    plan = _Plan(encoded, config, n_updates, seed, int(local.tokenizer.pad_token_id))
    out.mkdir(parents=True, exist_ok=True)
    watch = _Watch(local, out, validate, _evaluation_updates(config, n_updates), progress, label)
    trainer = _Trainer(
        model=local.model,
        args=_arguments(out, config, plan, seed, local.device),
        train_dataset=plan,
        data_collator=_only,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.watch = watch
    trainer.train()
    local.model.config.use_cache = True  # the Trainer switches it off
    if validate is None:
        save(local, out)
    return TrainingLog(
        n_rows=len(encoded),
        n_too_long=n_too_long,
        n_tokens=plan.n_tokens,
        n_updates=n_updates,
        best_update=watch.best_update if validate else n_updates,
        validations=tuple(watch.validations),
        seconds=time.monotonic() - started,
        micro_batch=plan.micro_batch,
    )


def _fitting(
    local: LocalModel, rows: Sequence[TrainRow], config: Train, label: str
) -> tuple[list[Encoded], int]:
    limit = min(config.max_length, max_positions(local) or config.max_length)
    encoded = encode_rows(local.tokenizer, rows)
    fitting = [row for row in encoded if len(row.ids) <= limit]
    if not fitting:
        raise BadInput(
            f"{label}: none of {len(rows)} rows has at most {limit} tokens; raise max_length"
            if rows
            else f"{label}: there are no rows to train on"
        )
    return fitting, len(encoded) - len(fitting)


def _evaluation_updates(config: Train, n_updates: int) -> frozenset[int]:
    """The updates after which the validation split is asked."""
    k = config.evaluations
    return frozenset(max(1, round(n_updates * i / k)) for i in range(1, k + 1))


class _Plan(Dataset[dict[str, Any]]):
    """All micro-batches of a training, in order, collated when asked for."""

    def __init__(
        self, rows: list[Encoded], config: Train, n_updates: int, seed: int, pad_id: int
    ) -> None:
        wanted = min(config.micro_batch or config.batch_size, config.batch_size)
        self.micro_batch = next(m for m in range(wanted, 0, -1) if config.batch_size % m == 0)
        self.n_updates = n_updates
        self.n_micro = config.batch_size // self.micro_batch
        self.rows = rows
        self.pad_id = pad_id
        order = _shuffled_passes(len(rows), n_updates * config.batch_size, seed)
        updates = order.reshape(n_updates, config.batch_size)
        weights = np.array([sum(row.weights) for row in rows])
        lengths = np.array([len(row.ids) for row in rows])
        self.weight = weights[updates].sum(axis=1)
        self.n_tokens = int(lengths[updates].sum())
        # Micro-batches of like length hold less padding; an update holds the same rows either way.
        by_length = np.argsort(-lengths[updates], axis=1, kind="stable")
        self.order = np.take_along_axis(updates, by_length, axis=1).reshape(-1)

    def __len__(self) -> int:
        return self.n_updates * self.n_micro

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = index * self.micro_batch
        rows = [self.rows[i] for i in self.order[start : start + self.micro_batch]]
        batch: dict[str, Any] = dict(_collate(rows, self.pad_id))
        batch["total_weight"] = float(self.weight[index // self.n_micro])
        return batch


def _shuffled_passes(n_rows: int, n_wanted: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(n_rows) for _ in range(-(-n_wanted // n_rows))]
    return np.concatenate(passes)[:n_wanted]


def _collate(rows: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """Inputs [n, width] padded on the right; targets and weights [n, last] for the last places.

    `last` reaches back to the first token of any row that counts, so that no logits are computed
    for what is prompt in every row.
    """
    width = max(len(row.ids) for row in rows) - 1
    ids = np.full((len(rows), width + 1), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    weights = np.zeros((len(rows), width + 1), dtype=np.float32)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        mask[i, : len(row.ids)] = 1
        weights[i, : len(row.ids)] = row.weights
    counted = np.flatnonzero((weights > 0).any(axis=0))
    first = int(counted[0]) if len(counted) else width
    return {
        "input_ids": torch.from_numpy(ids[:, :-1]),
        "attention_mask": torch.from_numpy(mask),
        "targets": torch.from_numpy(ids[:, first:]),
        "weights": torch.from_numpy(weights[:, first:]),
    }


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item


def _arguments(out: Path, config: Train, plan: _Plan, seed: int, device: str) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=plan.n_updates,
        per_device_train_batch_size=1,  # an item is a micro-batch
        gradient_accumulation_steps=plan.n_micro,
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULES[config.schedule],
        warmup_steps=round(config.warmup_ratio * plan.n_updates),
        weight_decay=config.weight_decay,
        max_grad_norm=MAX_GRAD_NORM,
        logging_steps=max(1, plan.n_updates // N_LOG_LINES),
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=device.startswith("cuda"),
        use_cpu=device == "cpu",
        bf16=device.startswith("cuda") and torch.cuda.is_bf16_supported(),
        seed=seed % 2**32,
    )
    arguments._n_gpu = 1  # several GPUs are for several processes, not for DataParallel
    return arguments


class _Trainer(Trainer):
    """Trainer with our loss and our log."""

    loss_is_scaled_for_ga = True  # divided by the weight of the whole effective batch
    watch: "_Watch"

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        targets, weights = inputs["targets"], inputs["weights"]
        extra = accepted_arguments(self.model, logits_to_keep=targets.shape[1])
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            **extra,
        )
        logits = outputs.logits[:, -targets.shape[1] :]
        total, _ = weighted_nll(logits, targets, weights)
        loss = total / max(inputs["total_weight"], torch.finfo(torch.float32).tiny)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: counting parameters at every step is slow and nobody asks."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if "loss" in logs:
            self.watch.write(self.state.global_step, logs["loss"], logs["learning_rate"])


class _Watch(TrainerCallback):
    """Tells the progress, asks the validation split, keeps the best weights, writes the log."""

    def __init__(
        self,
        local: LocalModel,
        out: Path,
        validate: Validate | None,
        evaluation_updates: frozenset[int],
        progress: Progress,
        label: str,
    ) -> None:
        self.local, self.out, self.validate = local, out, validate
        self.evaluation_updates = evaluation_updates
        self.progress, self.label = progress, label
        self.validations: list[tuple[int, float]] = []
        self.best_update = 0
        self.started = time.monotonic()
        self.metrics = out / "metrics.jsonl"
        self.metrics.write_text("", "utf-8")

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        update = state.global_step
        self.progress(self.label, update, state.max_steps)
        if update == state.max_steps:
            control.should_log = True
        if self.validate is not None and update in self.evaluation_updates:
            control.should_log = True
            self._ask(update, self.validate)

    def _ask(self, update: int, validate: Validate) -> None:
        model = self.local.model
        model.train(False)
        model.config.use_cache, use_cache = True, model.config.use_cache
        value = float(validate(self.local))
        if not self.validations or value > max(best for _, best in self.validations):
            self.best_update = update
            save(self.local, self.out)
        self.validations.append((update, value))
        model.config.use_cache = use_cache
        model.train()

    def write(self, update: int, loss: float, learning_rate: float) -> None:
        """One line of metrics.jsonl; `validation` is null where the split was not asked."""
        line = {
            "update": update,
            "loss": loss,
            "learning_rate": learning_rate,
            "seconds": round(time.monotonic() - self.started, 3),
            "validation": dict(self.validations).get(update),
        }
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
