"""The training loop of all models: warm-up, assistant, instruction tuning and student."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
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
    uses_bfloat16,
)
from bridgekd.lm.memory import choose_micro_tokens
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.packing import can_pack
from bridgekd.lm.reference_model import (
    ReferenceModel,
    attach_logprobs,
    load_aligned_reference,
    load_reference,
)
from bridgekd.lm.rollouts import SamplingSpec
from bridgekd.lm.segments import Segment
from bridgekd.lm.shared_vocabulary import PROBE_TEXTS
from bridgekd.lm.token_bytes import check_token_places
from bridgekd.lm.tokenization import TokenizedSequence, tokenize_sequences, truncate_prompt
from bridgekd.lm.trainer import UpdateTrainer
from bridgekd.lm.training_job import TrainingJob, TrainingLog
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.messages import format_value
from bridgekd.progress import Progress, ignore_progress
from bridgekd.records import TrainingSequence
from bridgekd.rng import make_rng

MAX_GRAD_NORM = 1.0
MAX_LOG_LINES = 100  # about this number of lines in the training log
_LOGGED_STATE = {
    "micro_tokens", "n_halvings", "gradient_checkpointing", "n_rollouts", "n_rollout_tokens",
    "n_complete_rollouts", "total_reward",
}  # fmt: skip
LR_SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def fine_tune(job: TrainingJob, progress: Progress = ignore_progress) -> TrainingLog:
    """Run a training and return its log. `training_log.jsonl` is beside the weights.

    A killed training that is called again with the same job resumes from its last checkpoint. It
    ends with the same weights as an uninterrupted one. `fine_tune` also works under torchrun and
    `accelerate launch`. With `runtime.num_processes` it starts the processes itself; then
    `validate` must be picklable. On the same CPU, the same job gives the same bytes. Raises
    InputError if no row is left.
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
    """Do the work of one process: all of a training, or its shard of every update."""
    arguments = _build_arguments(job)  # first, because it connects the processes
    torch.manual_seed(_draw_seed(job, "initialize LoRA"))
    local = load_model(
        job.base, device=_choose_device(job, arguments), revision=job.revision, trainable=True,
        lora=job.lora, attention=job.runtime.attn_implementation, precision=job.runtime.precision,
    )  # fmt: skip
    local = replace(local, free_bytes=job.free_bytes)
    fitting, n_too_long, n_truncated = _fit_to_length(local, job)
    rows, groups = list(fitting.values()), [job.rows[i].group for i in fitting]
    reference, rows = _add_reference(job, local, [job.rows[i] for i in fitting], rows)
    n_processes = int(arguments.world_size)
    schedule = UpdateSchedule(
        rows, batch_size=job.config.batch_size, n_updates=job.n_updates, seed=job.seed,
        order=job.order, groups=groups, n_processes=n_processes,
        n_updates_before=job.n_updates_before,
    )  # fmt: skip
    identity = compute_identity(
        rows, job.config, job.n_updates, job.seed, n_processes,
        f"{job.objective!r} {job.reference!r} {job.order!r} {groups!r} {job.n_updates_before}",
    )  # fmt: skip
    latest = find_latest_checkpoint(job.resume_dir, identity)
    checkpoint, state = latest or (None, CheckpointState(identity=identity))
    longest_target, longest_row = _find_longest(job, rows)
    _set_memory_limits(local, job, state, schedule, longest_row)
    resumed_at, seconds_before = state.update, state.seconds
    monitor = TrainingMonitor(local, job, longest_target, state, partial(progress, job.label))
    trainer = UpdateTrainer(
        local, rows, schedule, monitor, arguments,
        objective=job.objective, seed=job.seed, reference=reference,
        sampling=SamplingSpec(longest_target, job.reward, [job.rows[i].id for i in fitting]),
        padding_free=_can_pack_all(local, reference, rows),
    )  # fmt: skip
    if state.gradient_checkpointing:
        trainer.enable_gradient_checkpointing()
    monitor.begin_log(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.monotonic() - monitor.started
    if is_main_process():
        _save_best(local, job, state)
    n_tokens = schedule.count_tokens_until(state.update)
    n_new_tokens = n_tokens - schedule.count_tokens_until(resumed_at)
    return TrainingLog(
        n_rows=len(rows),
        n_too_long=n_too_long,
        n_truncated=n_truncated,
        n_tokens=n_tokens,
        n_target_tokens=schedule.count_targets_until(state.update),
        n_updates=state.update,
        best_update=state.best_update if job.validate else state.update,
        validations=tuple(state.validations),
        seconds=round(seconds, 3),
        tokens_per_s=round(n_new_tokens / max(seconds - seconds_before, 1e-9), 1),
        resumed_at=resumed_at,
        padding_free=trainer.padding_free,
        n_processes=n_processes,
        max_target_tokens=longest_target,
        **state.model_dump(include=_LOGGED_STATE),
    )


def _can_pack_all(
    local: LocalModel, reference: ReferenceModel | None, rows: Sequence[TokenizedSequence]
) -> bool:
    """Return whether both models can read packed rows."""
    pairs: list[tuple[LocalModel, Sequence[TokenizedSequence]]] = [(local, rows)]
    if reference is not None:
        converted = [reference.convert_row(i, row) for i, row in enumerate(rows)]
        pairs.append((reference.local, converted))
    return all(can_pack(*pair) for pair in pairs)


def _add_reference(
    job: TrainingJob,
    local: LocalModel,
    sequences: Sequence[TrainingSequence],
    rows: list[TokenizedSequence],
) -> tuple[ReferenceModel | None, list[TokenizedSequence]]:
    """Return the reference model of the objective, None without one, and the rows: the sequences
    in tokens, with what the objective needs of them.
    """
    objective, name = OBJECTIVES.load(job.objective), job.objective.name
    precision = job.runtime.precision
    if objective.needs_reward and job.reward is None:
        raise InputError(
            f"{job.label}: the objective {name} needs rewards, which this training has not. Use "
            "another objective, or a method with rewards (`bridgekd list methods`)."
        )
    if objective.needs_reference_model and job.reference is None:
        raise InputError(
            f"{job.label}: the objective {name} needs a reference model. Set one, or use the "
            "objective nll."
        )
    if objective.match_tokens is None:
        if job.reference is None or not objective.needs_reference_model:
            return None, rows
        return load_reference(job.reference, local, sequences, precision, name), rows
    check_token_places(local.tokenizer, PROBE_TEXTS, name)
    match_tokens, options = objective.match_tokens, OBJECTIVES.parse_options(job.objective)

    def match(our_ends: Sequence[int], their_ends: Sequence[int]) -> list[Segment]:
        return match_tokens(our_ends, their_ends, options)

    if objective.needs_logprobs:
        if not all(sequence.target_logprobs for sequence in sequences):
            raise InputError(
                f"{job.label}: the objective {name} needs the log-probabilities of a reference "
                "model. Use it in the method distill."
            )
        return None, attach_logprobs(local.tokenizer, sequences, rows, match)
    assert job.reference is not None
    return load_aligned_reference(job.reference, local, sequences, rows, precision, match)


def _find_longest(job: TrainingJob, rows: Sequence[TokenizedSequence]) -> tuple[int, int]:
    """Return the tokens of the longest target and row, which the model may write itself."""
    target = job.max_rollout_tokens or max(len(row.ids) - row.n_prompt for row in rows)
    longest = max(len(row.ids) for row in rows)
    if OBJECTIVES.load(job.objective).plan_rollouts is not None:
        longest = max(longest, max(row.n_prompt for row in rows) + target)
    return target, longest


def _set_memory_limits(
    local: LocalModel,
    job: TrainingJob,
    state: CheckpointState,
    schedule: UpdateSchedule,
    max_length: int,
) -> None:
    """Set the micro-batch from the recipe, or from free memory if an update may not fit.

    max_length: the tokens of the longest row, which the model may write itself.
    """
    state.micro_tokens = state.micro_tokens or job.runtime.micro_batch_tokens
    if state.micro_tokens is None:
        n_tokens = choose_micro_tokens(local, schedule.n_processes, max_length)
        if n_tokens < schedule.count_max_shard_tokens(max_length):
            state.micro_tokens = max(n_tokens, max_length)
        # Factor 2, because the estimate is rounded down to a power of two.
        state.gradient_checkpointing |= max_length >= 2 * n_tokens


def _fit_to_length(
    local: LocalModel, job: TrainingJob
) -> tuple[dict[int, TokenizedSequence], int, int]:
    """Return (rows that fit by their index, number of dropped rows, number of truncated rows)."""
    limit = min(job.config.max_length, get_max_positions(local) or job.config.max_length)
    tokenized = tokenize_sequences(local.tokenizer, job.rows)
    rows: dict[int, TokenizedSequence] = {}
    n_truncated = 0
    for i, row in enumerate(tokenized):
        if len(row.ids) <= limit:
            rows[i] = row
        elif job.config.on_overflow == "truncate_prompt":
            truncated = truncate_prompt(row, limit, local.tokenizer.bos_token_id)
            rows |= {i: truncated} if truncated else {}
            n_truncated += truncated is not None
    # What is left of a group that lost its positive rows would only be unlearned.
    whole = {job.rows[i].group for i, row in rows.items() if max(row.weights) > 0}
    rows = {i: row for i, row in rows.items() if job.rows[i].group in {"", *whole}}
    if not rows:
        raise InputError(
            f"{job.label}: none of {len(tokenized)} rows has at most {limit} tokens. Raise "
            "max_length."
            if tokenized
            else f"{job.label}: there are no rows to train on."
        )
    return rows, len(tokenized) - len(rows), n_truncated


def _save_best(local: LocalModel, job: TrainingJob, state: CheckpointState) -> None:
    """Save the best weights, or the last ones without `validate`; remove the checkpoints."""
    if job.validate is None:
        save_model(local, job.output_dir)
    else:
        best = get_best_folder(job.resume_dir, state.best_update)
        shutil.copytree(best, job.output_dir, dirs_exist_ok=True)
    for folder in [*job.resume_dir.glob("checkpoint-*"), *job.resume_dir.glob("best-*")]:
        shutil.rmtree(folder)
    for file in job.resume_dir.glob("rollouts-*"):
        file.unlink()


def _choose_device(job: TrainingJob, arguments: TrainingArguments) -> str:
    """Return the device of this process. Each of several processes has its own GPU."""
    device = resolve_device(job.device)
    if device == "cuda" and arguments.world_size > 1:
        return f"cuda:{arguments.local_process_index}"
    return device


def _build_arguments(job: TrainingJob) -> TrainingArguments:
    config, device = job.config, resolve_device(job.device)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(job.resume_dir),
        max_steps=job.n_updates,
        per_device_train_batch_size=1,  # an item is a whole update
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type=LR_SCHEDULERS[config.lr_scheduler_type],
        warmup_steps=round(config.warmup_ratio * job.n_updates),
        weight_decay=config.weight_decay,
        max_grad_norm=MAX_GRAD_NORM,
        logging_steps=max(1, job.n_updates // MAX_LOG_LINES),
        save_strategy="no",  # the monitor decides when to save
        save_total_limit=2,
        eval_strategy="no",
        report_to=_check_trackers(job) or "none",
        run_name=job.label,
        disable_tqdm=True,
        log_level="error",
        use_cache=True,  # otherwise the Trainer switches it off in the saved config
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=device == "cpu",
        bf16=uses_bfloat16(device, job.runtime.precision),
        ddp_backend="gloo" if device == "cpu" and "WORLD_SIZE" in os.environ else None,
        ddp_find_unused_parameters=False,
        seed=_draw_seed(job, "dropout"),
    )
    arguments._n_gpu = 1  # several GPUs are for several processes, not for DataParallel
    _check_processes(job, arguments.world_size)
    return arguments


def _draw_seed(job: TrainingJob, purpose: str) -> int:
    return int(make_rng(job.seed, purpose).integers(2**32))


def _check_processes(job: TrainingJob, n_processes: int) -> None:
    if job.config.batch_size < n_processes:
        raise InputError(
            f"{job.label}: {n_processes} processes cannot share updates of "
            f"{job.config.batch_size} sequences. Raise batch_size or lower runtime.num_processes."
        )


def _check_trackers(job: TrainingJob) -> list[str]:
    """Return the trackers of `runtime.report_to`; raise InputError for one that cannot run here."""
    trackers: Any = integration_utils
    for name in job.runtime.report_to:
        try:
            trackers.get_reporting_integration_callbacks([name])
        except ValueError as exc:
            raise InputError(
                f"runtime.report_to: {format_value(name)} is not a tracker. {exc}"
            ) from exc
        if name not in trackers.get_available_reporting_integrations():
            raise InputError(
                f"runtime.report_to: {format_value(name)} is not installed. Install it with pip, "
                "or remove it."
            )
    return list(job.runtime.report_to)
