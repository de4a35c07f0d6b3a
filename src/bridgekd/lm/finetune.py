"""One training loop for every training: warm-up, assistant, instruction, student."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import integration_utils

from bridgekd.config import Lora, RuntimeOptions, Train
from bridgekd.core.draws import stream
from bridgekd.errors import BadInput
from bridgekd.lm.encode import Encoded, encode_rows, shortened
from bridgekd.lm.loading import LocalModel, load, max_positions, resolve_device, save
from bridgekd.lm.memory import choose_micro_tokens
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.packing import packs
from bridgekd.lm.processes import in_processes
from bridgekd.lm.reference_model import ReferenceModel, ReferenceSpec, load_reference
from bridgekd.lm.standing import Standing, best_folder, identity_of, latest_checkpoint
from bridgekd.lm.task import Task, Validate
from bridgekd.lm.trainer import UpdateTrainer
from bridgekd.lm.training_log import TrainingLog
from bridgekd.lm.updates import Updates
from bridgekd.lm.watching import Watch, is_first
from bridgekd.progress import Progress, silent
from bridgekd.records import TrainRow
from bridgekd.variants import VariantRef, VariantSettings

MAX_GRAD_NORM = 1.0
N_LOG_LINES = 100  # about so many lines of metrics.jsonl per training
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


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
    runtime: RuntimeOptions | None = None,
    unfinished: Path | None = None,
    objective: VariantSettings | None = None,
    reference: ReferenceSpec | None = None,
    free_bytes: int | None = None,
) -> TrainingLog:
    """Trains `base` on `rows` for `n_updates` optimiser updates and saves it into `out`.

    Rows are shuffled anew for every pass and passes follow on without a gap. `validate` (higher is
    better) is asked `config.evaluations` times, evenly spaced and at the end; the best weights are
    the ones saved, the earliest of equals; without it the last. Rows longer than
    `config.max_length`, or than the model has positions for, are left out or cut, and counted.
    Logged steps go to `<out>/metrics.jsonl`. The default objective is the negative log-likelihood.
    One that needs a `reference` model falls back to it where the vocabularies differ, and the log
    says so. Without `runtime.micro_batch_tokens` free memory limits a micro-batch; `free_bytes`
    overrides what is measured.

    Checkpoints go into `unfinished`: called again with the same arguments and folder, a training
    that was killed goes on and ends with the weights of an undisturbed one. Works under torchrun
    and `accelerate launch`, too; with `runtime.num_processes` it starts that many itself (then
    `validate` must be picklable). Same arguments, same CPU: same bytes. Raises BadInput if no row
    is left.
    """
    task = Task(
        base, rows, out, config, n_updates, seed, device, revision, lora, validate, label,
        runtime or RuntimeOptions(), unfinished or out / "unfinished", _make_ref(objective),
        reference, free_bytes,
    )  # fmt: skip
    task.work.mkdir(parents=True, exist_ok=True)
    if task.runtime.num_processes > 1 and "WORLD_SIZE" not in os.environ:
        _shared_by(task, task.runtime.num_processes)
        log = in_processes(task, progress)
    else:
        log = trained(task, progress)
    if unfinished is None and is_first():
        shutil.rmtree(task.work, ignore_errors=True)
    return log


def trained(task: Task, progress: Progress) -> TrainingLog:
    """The work of one process: all of it, or its share of every update."""
    arguments = _arguments(task)  # first, because it joins the other processes
    torch.manual_seed(_draw_seed(task, "initialize LoRA"))
    local = load(
        task.base, device=_device(task, arguments), revision=task.revision, trainable=True,
        lora=task.lora, attention=task.runtime.attn_implementation,
    )  # fmt: skip
    local = replace(local, free_bytes=task.free_bytes)
    rows, n_too_long, n_cut = _fitting(local, task)
    n_processes = int(arguments.world_size)
    updates = Updates(
        rows, batch_size=task.config.batch_size, n_updates=task.n_updates, seed=task.seed,
        n_processes=n_processes,
    )  # fmt: skip
    settings, reference = _prepare_objective(task, local)
    identity = identity_of(
        rows, task.config, task.n_updates, task.seed, n_processes,
        f"{settings!r} {task.reference!r}",
    )  # fmt: skip
    checkpoint, standing = latest_checkpoint(task.work, identity) or (None, Standing(identity))
    _bound_memory(local, task, standing, updates, has_reference=reference is not None)
    began_at, began_after = standing.update, standing.seconds
    watch = _watch(local, task, standing, progress)
    trainer = UpdateTrainer(
        local, rows, updates, watch, arguments,
        objective=OBJECTIVES.load(settings), options=OBJECTIVES.parse_options(settings),
        seed=task.seed, reference=reference, in_one_line=reference is None and packs(local, rows),
    )  # fmt: skip
    if standing.gradient_checkpointing:
        trainer.save_activations()
    watch.begin(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.monotonic() - watch.started
    _deliver(local, task, standing)
    here = updates.tokens_until(standing.update) - updates.tokens_until(began_at)
    return TrainingLog(
        n_rows=len(rows),
        n_too_long=n_too_long,
        n_cut=n_cut,
        n_tokens=updates.tokens_until(standing.update),
        n_target_tokens=updates.targets_until(standing.update),
        n_updates=standing.update,
        best_update=standing.best_update if task.validate else standing.update,
        validations=tuple(standing.validations),
        seconds=round(seconds, 3),
        tokens_per_s=round(here / max(seconds - began_after, 1e-9), 1),
        resumed_at=began_at,
        micro_tokens=standing.micro_tokens,
        n_halved=standing.n_halved,
        gradient_checkpointing=standing.gradient_checkpointing,
        padding_free=trainer.in_one_line,
        n_processes=n_processes,
        with_mentor=reference is not None,
    )


def _make_ref(objective: VariantSettings | None) -> VariantRef:
    return VariantRef(name="nll") if objective is None else OBJECTIVES.get_ref(objective)


def _prepare_objective(
    task: Task, local: LocalModel
) -> tuple[VariantSettings, ReferenceModel | None]:
    """Return the objective of this training, and its reference model if it has one."""
    settings = OBJECTIVES.resolve(task.objective)
    if not OBJECTIVES.load(settings).needs_reference_model:
        return settings, None
    if task.reference is None:
        raise BadInput(
            f"{task.label}: the objective {settings.name} needs a reference model. Give one, or "
            "use the objective nll."
        )
    reference = load_reference(task.reference, local)
    if reference is None:
        return OBJECTIVES.resolve(VariantRef(name="nll")), None
    return settings, reference


def _bound_memory(
    local: LocalModel, task: Task, standing: Standing, updates: Updates, *, has_reference: bool
) -> None:
    """Set the micro-batch from the recipe, else from free memory where an update may not fit."""
    standing.micro_tokens = standing.micro_tokens or task.runtime.micro_batch_tokens
    if standing.micro_tokens is None:
        n_tokens = choose_micro_tokens(local, updates.n_processes, has_reference)
        longest = int(updates.lengths.max())
        if n_tokens < updates.max_shard_tokens():
            standing.micro_tokens = max(n_tokens, longest)
        # Twice, because the estimate is rounded down to a power of two.
        standing.gradient_checkpointing |= longest >= 2 * n_tokens


def _fitting(local: LocalModel, task: Task) -> tuple[list[Encoded], int, int]:
    """(rows that fit, how many were left out, how many were cut)."""
    limit = min(task.config.max_length, max_positions(local) or task.config.max_length)
    encoded = encode_rows(local.tokenizer, task.rows)
    fitting: list[Encoded] = []
    n_cut = 0
    for row in encoded:
        if len(row.ids) <= limit:
            fitting.append(row)
        elif task.config.too_long == "cut":
            short = shortened(row, limit, local.tokenizer.bos_token_id)
            fitting += [short] if short else []
            n_cut += short is not None
    if not fitting:
        raise BadInput(
            f"{task.label}: none of {len(encoded)} rows has at most {limit} tokens; "
            "raise max_length"
            if encoded
            else f"{task.label}: there are no rows to train on"
        )
    return fitting, len(encoded) - len(fitting), n_cut


def _watch(local: LocalModel, task: Task, standing: Standing, progress: Progress) -> Watch:
    k = task.config.evaluations
    return Watch(
        local,
        task.work,
        task.out,
        standing,
        validate=task.validate,
        evaluation_updates=frozenset(
            max(1, round(task.n_updates * i / k)) for i in range(1, k + 1)
        ),
        patience=task.config.patience,
        checkpoint_s=task.runtime.checkpoint_interval_s,
        tell=lambda update, of: progress(task.label, update, of),
    )


def _deliver(local: LocalModel, task: Task, standing: Standing) -> None:
    """The best weights, or the last where nothing says which are best."""
    if not is_first():
        return
    if task.validate is None:
        save(local, task.out)
    else:
        shutil.copytree(best_folder(task.work, standing.best_update), task.out, dirs_exist_ok=True)
    for folder in [*task.work.glob("checkpoint-*"), *task.work.glob("best-*")]:
        shutil.rmtree(folder)


def _device(task: Task, arguments: TrainingArguments) -> str:
    """Each of several processes has a GPU of its own."""
    device = resolve_device(task.device)
    if device == "cuda" and arguments.world_size > 1:
        return f"cuda:{arguments.local_process_index}"
    return device


def _arguments(task: Task) -> TrainingArguments:
    config, device = task.config, resolve_device(task.device)
    task.out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "output_dir": str(task.work),
        "max_steps": task.n_updates,
        "per_device_train_batch_size": 1,  # an item is a whole update
        "train_sampling_strategy": "sequential",
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES[config.schedule],
        "warmup_steps": round(config.warmup_ratio * task.n_updates),
        "weight_decay": config.weight_decay,
        "max_grad_norm": MAX_GRAD_NORM,
        "logging_steps": max(1, task.n_updates // N_LOG_LINES),
        "save_strategy": "no",  # the watch says when
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": _known_trackers(task.runtime.report_to) or "none",
        "run_name": task.label,
        "disable_tqdm": True,
        "log_level": "error",
        "use_cache": True,  # or the Trainer switches it off in the saved config, too
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": device == "cpu",
        "bf16": device.startswith("cuda") and torch.cuda.is_bf16_supported(),
        "ddp_backend": "gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
        "ddp_find_unused_parameters": False,
        "seed": _draw_seed(task, "dropout"),
    }
    arguments = TrainingArguments(**settings)
    arguments._n_gpu = 1  # several GPUs are for several processes, not for DataParallel
    _shared_by(task, arguments.world_size)
    return arguments


def _draw_seed(task: Task, purpose: str) -> int:
    return int(stream(task.seed, purpose).integers(2**32))


def _shared_by(task: Task, n_processes: int) -> None:
    if task.config.batch_size < n_processes:
        raise BadInput(
            f"{task.label}: {n_processes} processes cannot share updates of "
            f"{task.config.batch_size} sequences; raise batch_size or lower runtime.num_processes"
        )


def _known_trackers(names: Sequence[str]) -> list[str]:
    """The trackers that transformers can report to here."""
    trackers: Any = integration_utils
    for name in names:
        try:
            trackers.get_reporting_integration_callbacks([name])
        except ValueError as exc:
            raise BadInput(f"runtime.report_to {name!r} is no tracker; {exc}") from exc
        if name not in trackers.get_available_reporting_integrations():
            raise BadInput(
                f"runtime.report_to {name!r} is not installed; pip install it, or leave it out"
            )
    return list(names)
