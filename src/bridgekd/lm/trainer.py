"""A Trainer of transformers that works on whole updates.

An item of its data set is a whole update. It is split into micro-batches when it is processed. So
if memory runs out, the same update is split into smaller micro-batches; the effective batch, the
learning rate and the order stay the same.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer

from bridgekd.errors import InputError
from bridgekd.lm.callbacks import TrainingMonitor
from bridgekd.lm.chunked_loss import compute_chunked_loss, split_targets
from bridgekd.lm.collate import batch_by_max_tokens, batch_packed_rows
from bridgekd.lm.forward import compute_states_at
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import free_device_memory, get_out_of_memory_reason
from bridgekd.lm.objectives import OBJECTIVES, Objective, TokenBatch
from bridgekd.lm.packing import separate_rows
from bridgekd.lm.reference_model import ReferenceModel
from bridgekd.lm.rollouts import RolloutSampler, SamplingSpec
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import (
    MicroBatch,
    UpdateSchedule,
    UpdateShard,
    pack_batch,
    pad_batch,
)
from bridgekd.variants import VariantSettings

TINY = torch.finfo(torch.float32).tiny


class UpdateTrainer(Trainer):
    """A Trainer with the objectives, the micro-batches and the log of bridgekd."""

    loss_is_scaled_for_ga = True  # the loss is already divided by the weight of the whole update

    def __init__(
        self,
        local: LocalModel,
        rows: Sequence[TokenizedSequence],
        schedule: UpdateSchedule,
        monitor: TrainingMonitor,
        arguments: Any,
        *,
        objective: VariantSettings,
        seed: int,
        reference: ReferenceModel | None,
        sampling: SamplingSpec,
        padding_free: bool,
    ) -> None:
        super().__init__(
            model=local.model,
            args=arguments,
            train_dataset=schedule,
            data_collator=_unwrap_single,
            callbacks=[monitor],
        )
        self.remove_callback(PrinterCallback)
        self.local, self.rows, self.schedule, self.monitor = local, rows, schedule, monitor
        self.objective: Objective = OBJECTIVES.load(objective)
        self.options, self.reference = OBJECTIVES.parse_options(objective), reference
        if self.objective.schedule is not None and not monitor.checkpoint_state.objective_state:
            start = self.objective.schedule.start(self.options)
            monitor.checkpoint_state.objective_state = dict(start)
        self.padding_free = padding_free
        self.models = [local] if reference is None else [local, reference.local]
        self.sampler = RolloutSampler(
            local, rows, schedule, seed=seed, spec=sampling, folder=monitor.job.resume_dir,
            process=self.accelerator.process_index,
            shared_ids=None if reference is None else reference.list_shared_ids(),
        )  # fmt: skip

    def training_step(
        self, model: Any, inputs: Mapping[str, object], num_items_in_batch: Any = None
    ) -> Tensor:
        """Compute the gradients of this process's shard and return its part of the loss."""
        shard = inputs["shard"]
        assert isinstance(shard, UpdateShard)
        numbers, rows = self._prepare_rows(shard)
        model.train()
        while True:
            try:
                loss = self._run_update(model, numbers, rows, shard.weight)
                self._advance_schedule(loss)
                return loss
            except (RuntimeError, MemoryError) as exc:
                reason = get_out_of_memory_reason(exc)
                if reason is None:
                    raise
            self._halve_micro_batch(rows, reason)

    def _prepare_rows(self, shard: UpdateShard) -> tuple[Sequence[int], list[TokenizedSequence]]:
        """Return the rows of a shard and their numbers. An on-policy objective replaces targets by
        rollouts.
        """
        state, plan = self.monitor.checkpoint_state, self.objective.plan_rollouts
        if plan is not None:
            rollouts = plan(self.options, self._get_progress(), state.objective_state)
            if rollouts is not None:
                return self.sampler.prepare_rows(self.state.global_step, rollouts, state)
        return shard.rows, [self.rows[i] for i in shard.rows]

    def _get_progress(self) -> float:
        return self.state.global_step / self.state.max_steps

    def _advance_schedule(self, loss: Tensor) -> None:
        """Update the objective's state with the loss of this update, the same in all processes."""
        if self.objective.schedule is not None:
            state = self.monitor.checkpoint_state
            value = float(self.accelerator.gather(loss.detach()[None]).mean())
            state.objective_state = dict(
                self.objective.schedule.advance(
                    state.objective_state, value, self._get_progress(), self.options
                )
            )

    def _run_update(
        self,
        model: Any,
        numbers: Sequence[int],
        rows: Sequence[TokenizedSequence],
        weight: float,
    ) -> Tensor:
        batches = self._split_update(rows)
        others: Sequence[TokenizedSequence] = ()
        if self.reference is not None:
            pairs = zip(numbers, rows, strict=True)
            others = [self.reference.convert_row(i, row) for i, row in pairs]
        total = torch.zeros((), device=self.local.device)
        with separate_rows(*self.models) if self.padding_free else nullcontext():
            for k, batch in enumerate(batches, 1):
                with self.accelerator.no_sync(model) if k < len(batches) else nullcontext():
                    other = [others[i] for i in batch] if others else None
                    loss = self._compute_loss(model, [rows[i] for i in batch], other, weight)
                    self.accelerator.backward(loss)
                total += loss.detach()
        return total

    def _split_update(self, rows: Sequence[TokenizedSequence]) -> list[list[int]]:
        max_tokens = self.monitor.checkpoint_state.micro_tokens
        if max_tokens is None:
            return [list(range(len(rows)))]
        split = batch_packed_rows if self.padding_free else batch_by_max_tokens
        return split([len(row.ids) for row in rows], max_tokens)

    def _build_batch(self, local: LocalModel, rows: Sequence[TokenizedSequence]) -> MicroBatch:
        if self.padding_free:
            return pack_batch(rows, local.device)
        return pad_batch(rows, int(local.tokenizer.pad_token_id), local.device)

    def _compute_loss(
        self,
        model: Any,
        rows: Sequence[TokenizedSequence],
        others: Sequence[TokenizedSequence] | None,
        weight: float,
    ) -> Tensor:
        """Return the part of the update's loss that these rows contribute.

        others: the same rows as the reference model reads them.
        """
        batch, inner, reference = (
            self._build_batch(self.local, rows),
            self.local.model,
            self.reference,
        )
        _, states, head = compute_states_at(
            model, batch.positions, batch.forward_arguments, inner=inner
        )
        compute_reference = mask = shared_ids = None
        if reference is not None and others is not None:
            own = self._build_batch(reference.local, others)
            compute_reference, mask = reference.read_tokens(batch, own)
            shared_ids = reference.shared_ids
        segments, logprobs = batch.segment_ids, batch.reference_logprobs

        def compute_loss(logits: Tensor, chunk: slice) -> Tensor:
            tokens = TokenBatch(
                logits, batch.targets[chunk], batch.weights[chunk],
                batch.sequence_ids[chunk] - batch.sequence_ids[chunk][:1],
                None if compute_reference is None else compute_reference(chunk),
                shared_ids, None if mask is None else mask[chunk], batch.is_rollout[chunk],
                batch.advantages[chunk],
                self._get_progress(), self.monitor.checkpoint_state.objective_state,
                segments[chunk], None if logprobs is None else logprobs[chunk],
            )  # fmt: skip
            return self.objective.compute_loss(tokens, self.options)

        is_aligned = self.objective.match_tokens is not None
        units = segments if is_aligned else batch.sequence_ids
        chunks = split_targets(self.objective, units, inner)
        total = compute_chunked_loss(head, states, chunks, compute_loss)
        # The processes average their gradients, hence the factor.
        return total * self.schedule.n_processes / max(weight, TINY)

    def _halve_micro_batch(self, rows: Sequence[TokenizedSequence], reason: str) -> None:
        """Halve the tokens of a micro-batch, or else switch gradient checkpointing on.

        Raises InputError if neither is possible.
        """
        model, state = self.local.model, self.monitor.checkpoint_state
        model.zero_grad(set_to_none=True)
        free_device_memory()
        max_length = max(len(row.ids) for row in rows)
        n_tokens = min(state.micro_tokens or sys.maxsize, max_length * len(rows))
        if self.schedule.n_processes > 1:
            raise InputError(
                f"Memory ran out in one of several processes ({reason}). Set "
                f"runtime.micro_batch_tokens to {n_tokens // 2} and run the same command again."
            )
        if n_tokens > max_length and len(self._split_update(rows)) < len(rows):
            state.micro_tokens = max(max_length, n_tokens // 2)
            state.n_halvings += 1
        elif not state.gradient_checkpointing:
            state.gradient_checkpointing = True
            self.enable_gradient_checkpointing()
        else:
            raise InputError(
                f"Memory does not hold one row of {max_length} tokens ({reason}). Lower "
                "max_length, use lora, or use a smaller model."
            )

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass from now on."""
        model: Any = self.local.model
        model.enable_input_require_grads()  # without it no gradient reaches an adapter
        is_new = hasattr(model, "activation_checkpointing_enable")
        name = "activation_checkpointing_enable" if is_new else "gradient_checkpointing_enable"
        getattr(model, name)({"use_reentrant": False})

    def floating_point_ops(self, inputs: Mapping[str, object]) -> int:
        """Return 0: the count is slow and unused."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if "loss" in logs:
            self.monitor.write_log(self.state.global_step, logs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.monitor.finish_checkpoint()


def _unwrap_single(items: list[UpdateShard]) -> dict[str, UpdateShard]:
    (item,) = items
    return {"shard": item}
