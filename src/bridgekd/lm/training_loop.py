"""One training loop for every training: warm-up, assistant, instruction, student."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import integration_utils

from bridgekd.errors import InputError
from bridgekd.lm.callbacks import TrainingMonitor, is_main_process
from bridgekd.lm.checkpoint import (
    CheckpointState,
    compute_identity,
    find_latest_checkpoint,
    get_best_folder,
)
from bridgekd.lm.distributed import run_distributed
from bridgekd.lm.load import (
    LocalModel,
    get_max_positions,
    load_model,
    resolve_device,
    save_model,
)
from bridgekd.lm.memory import choose_micro_tokens
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.packing import can_pack
from bridgekd.lm.reference_model import ReferenceModel, load_reference
from bridgekd.lm.tokenization import TokenizedSequence, tokenize_sequences, truncate_prompt
from bridgekd.lm.trainer import UpdateTrainer
from bridgekd.lm.training_job import NLL, TrainingJob
from bridgekd.lm.training_log import TrainingLog
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.progress import Progress, ignore_progress
from bridgekd.rng import make_rng
from bridgekd.variants import VariantSettings

MAX_GRAD_NORM = 1.0
MAX_LOG_LINES = 100  # about so many lines of training_log.jsonl per training
LR_SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def fine_tune(job: TrainingJob, progress: Progress = ignore_progress) -> TrainingLog:
    """Run a training and return its log. `training_log.jsonl` is beside the weights.

    Called again with the same job, a training that was killed resumes from its last checkpoint and
    ends with the weights of an undisturbed one. Works under torchrun and `accelerate launch`, too;
    with `runtime.num_processes` it starts this number of processes itself (then `validate` must be
    picklable). Same job, same CPU: same bytes. Raises InputError if no row is left.
    """
    job.resume_dir.mkdir(parents=True, exist_ok=True)
    if job.runtime.num_processes > 1 and "WORLD_SIZE" not in os.environ:
        _check_processes(job, job.runtime.num_processes)
        log = run_distributed(job, progress)
    else:
        log = run_training(job, progress)
    if job.workdir is None and is_main_process():
        shutil.rmtree(job.resume_dir, ignore_errors=True)
    return log


def run_training(job: TrainingJob, progress: Progress) -> TrainingLog:
    """The work of one process: all of it, or its share of every update."""
    arguments = _arguments(job)  # first, because it joins the other processes
    torch.manual_seed(_draw_seed(job, "initialize LoRA"))
    local = load_model(
        job.base, device=_device(job, arguments), revision=job.revision, trainable=True,
        lora=job.lora, attention=job.runtime.attn_implementation,
    )  # fmt: skip
    local = replace(local, free_bytes=job.free_bytes)
    rows, n_too_long, n_cut = _fit_to_length(local, job)
    n_processes = int(arguments.world_size)
    updates = UpdateSchedule(
        rows, batch_size=job.config.batch_size, n_updates=job.n_updates, seed=job.seed,
        n_processes=n_processes,
    )  # fmt: skip
    settings, reference = _prepare_objective(job, local)
    identity = compute_identity(
        rows, job.config, job.n_updates, job.seed, n_processes,
        f"{settings!r} {job.reference!r}",
    )  # fmt: skip
    checkpoint, standing = find_latest_checkpoint(job.resume_dir, identity) or (
        None,
        CheckpointState(identity),
    )
    _bound_memory(local, job, standing, updates, has_reference=reference is not None)
    began_at, began_after = standing.update, standing.seconds
    watch = _make_monitor(local, job, standing, progress)
    trainer = UpdateTrainer(
        local, rows, updates, watch, arguments,
        objective=OBJECTIVES.load(settings), options=OBJECTIVES.parse_options(settings),
        seed=job.seed, reference=reference, in_one_line=reference is None and can_pack(local, rows),
    )  # fmt: skip
    if standing.gradient_checkpointing:
        trainer.save_activations()
    watch.begin(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.monotonic() - watch.started
    _save_best(local, job, standing)
    here = updates.count_tokens_until(standing.update) - updates.count_tokens_until(began_at)
    return TrainingLog(
        n_rows=len(rows),
        n_too_long=n_too_long,
        n_truncated=n_cut,
        n_tokens=updates.count_tokens_until(standing.update),
        n_target_tokens=updates.count_targets_until(standing.update),
        n_updates=standing.update,
        best_update=standing.best_update if job.validate else standing.update,
        validations=tuple(standing.validations),
        seconds=round(seconds, 3),
        tokens_per_s=round(here / max(seconds - began_after, 1e-9), 1),
        resumed_at=began_at,
        micro_tokens=standing.micro_tokens,
        n_halvings=standing.n_halvings,
        gradient_checkpointing=standing.gradient_checkpointing,
        padding_free=trainer.in_one_line,
        n_processes=n_processes,
        used_reference=reference is not None,
    )


def _prepare_objective(
    job: TrainingJob, local: LocalModel
) -> tuple[VariantSettings, ReferenceModel | None]:
    """Return the objective of this training, and its reference model if it has one."""
    settings = job.objective
    if not OBJECTIVES.load(settings).needs_reference_model:
        return settings, None
    if job.reference is None:
        raise InputError(
            f"{job.label}: the objective {settings.name} needs a reference model. Give one, or "
            "use the objective nll."
        )
    reference = load_reference(job.reference, local)
    if reference is None:
        return NLL, None
    return settings, reference


def _bound_memory(
    local: LocalModel,
    job: TrainingJob,
    standing: CheckpointState,
    updates: UpdateSchedule,
    *,
    has_reference: bool,
) -> None:
    """Set the micro-batch from the recipe, else from free memory where an update may not fit."""
    standing.micro_tokens = standing.micro_tokens or job.runtime.micro_batch_tokens
    if standing.micro_tokens is None:
        n_tokens = choose_micro_tokens(local, updates.n_processes, has_reference)
        longest = int(updates.lengths.max())
        if n_tokens < updates.max_shard_tokens():
            standing.micro_tokens = max(n_tokens, longest)
        # Twice, because the estimate is rounded down to a power of two.
        standing.gradient_checkpointing |= longest >= 2 * n_tokens


def _fit_to_length(local: LocalModel, job: TrainingJob) -> tuple[list[TokenizedSequence], int, int]:
    """(rows that fit, how many were left out, how many were cut)."""
    limit = min(job.config.max_length, get_max_positions(local) or job.config.max_length)
    encoded = tokenize_sequences(local.tokenizer, job.rows)
    fitting: list[TokenizedSequence] = []
    n_cut = 0
    for row in encoded:
        if len(row.ids) <= limit:
            fitting.append(row)
        elif job.config.on_overflow == "truncate_prompt":
            short = truncate_prompt(row, limit, local.tokenizer.bos_token_id)
            fitting += [short] if short else []
            n_cut += short is not None
    if not fitting:
        raise InputError(
            f"{job.label}: none of {len(encoded)} rows has at most {limit} tokens; raise max_length"
            if encoded
            else f"{job.label}: there are no rows to train on"
        )
    return fitting, len(encoded) - len(fitting), n_cut


def _make_monitor(
    local: LocalModel, job: TrainingJob, standing: CheckpointState, progress: Progress
) -> TrainingMonitor:
    k = job.config.n_evaluations
    return TrainingMonitor(
        local,
        job.resume_dir,
        job.out,
        standing,
        validate=job.validate,
        evaluation_updates=frozenset(max(1, round(job.n_updates * i / k)) for i in range(1, k + 1)),
        patience=job.config.early_stopping_patience,
        checkpoint_s=job.runtime.checkpoint_interval_s,
        tell=lambda update, of: progress(job.label, update, of),
    )


def _save_best(local: LocalModel, job: TrainingJob, standing: CheckpointState) -> None:
    """The best weights, or the last where nothing says which are best."""
    if not is_main_process():
        return
    if job.validate is None:
        save_model(local, job.out)
    else:
        shutil.copytree(
            get_best_folder(job.resume_dir, standing.best_update), job.out, dirs_exist_ok=True
        )
    for folder in [*job.resume_dir.glob("checkpoint-*"), *job.resume_dir.glob("best-*")]:
        shutil.rmtree(folder)


def _device(job: TrainingJob, arguments: TrainingArguments) -> str:
    """Each of several processes has a GPU of its own."""
    device = resolve_device(job.device)
    if device == "cuda" and arguments.world_size > 1:
        return f"cuda:{arguments.local_process_index}"
    return device


def _arguments(job: TrainingJob) -> TrainingArguments:
    config, device = job.config, resolve_device(job.device)
    job.out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "output_dir": str(job.resume_dir),
        "max_steps": job.n_updates,
        "per_device_train_batch_size": 1,  # an item is a whole update
        "train_sampling_strategy": "sequential",
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": LR_SCHEDULERS[config.lr_scheduler_type],
        "warmup_steps": round(config.warmup_ratio * job.n_updates),
        "weight_decay": config.weight_decay,
        "max_grad_norm": MAX_GRAD_NORM,
        "logging_steps": max(1, job.n_updates // MAX_LOG_LINES),
        "save_strategy": "no",  # the watch says when
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": _check_trackers(job.runtime.report_to) or "none",
        "run_name": job.label,
        "disable_tqdm": True,
        "log_level": "error",
        "use_cache": True,  # or the Trainer switches it off in the saved config, too
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": device == "cpu",
        "bf16": device.startswith("cuda") and torch.cuda.is_bf16_supported(),
        "ddp_backend": "gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
        "ddp_find_unused_parameters": False,
        "seed": _draw_seed(job, "dropout"),
    }
    arguments = TrainingArguments(**settings)
    arguments._n_gpu = 1  # several GPUs are for several processes, not for DataParallel
    _check_processes(job, arguments.world_size)
    return arguments


def _draw_seed(job: TrainingJob, purpose: str) -> int:
    return int(make_rng(job.seed, purpose).integers(2**32))


def _check_processes(job: TrainingJob, n_processes: int) -> None:
    if job.config.batch_size < n_processes:
        raise InputError(
            f"{job.label}: {n_processes} processes cannot share updates of "
            f"{job.config.batch_size} sequences; raise batch_size or lower runtime.num_processes"
        )


def _check_trackers(names: Sequence[str]) -> list[str]:
    """The trackers that transformers can report to here."""
    trackers: Any = integration_utils
    for name in names:
        try:
            trackers.get_reporting_integration_callbacks([name])
        except ValueError as exc:
            raise InputError(f"runtime.report_to {name!r} is no tracker; {exc}") from exc
        if name not in trackers.get_available_reporting_integrations():
            raise InputError(
                f"runtime.report_to {name!r} is not installed; pip install it, or leave it out"
            )
    return list(names)
