"""transformers' Trainer, walking through whole updates.

The one idea: an item of the data set is a whole update, and it is cut into micro-batches at the
moment it is worked through. So memory that runs out costs a finer cut of the same update and
nothing else: effective batch, learning rate and order stay.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import PrinterCallback, Trainer

from bridgekd.errors import InputError
from bridgekd.lm.callbacks import TrainingMonitor
from bridgekd.lm.forward import compute_logits_at
from bridgekd.lm.load import LocalModel
from bridgekd.lm.memory import free_device_memory, is_out_of_memory
from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.on_policy import sample_targets
from bridgekd.lm.reference_model import ReferenceModel
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import (
    MicroBatch,
    UpdateSchedule,
    UpdateShard,
    pack_batch,
    pad_batch,
    split_micro_batches,
)

TINY = torch.finfo(torch.float32).tiny


class UpdateTrainer(Trainer):
    """Trainer with our loss, our micro-batches and our log."""

    loss_is_scaled_for_ga = True  # divided by the weight of the whole update

    def __init__(
        self,
        local: LocalModel,
        rows: Sequence[TokenizedSequence],
        updates: UpdateSchedule,
        watch: TrainingMonitor,
        arguments: Any,
        *,
        objective: Objective,
        options: BaseModel,
        seed: int,
        reference: ReferenceModel | None = None,
        in_one_line: bool = False,
    ) -> None:
        super().__init__(
            model=local.model,
            args=arguments,
            train_dataset=updates,
            data_collator=_unwrap_single,
            callbacks=[watch],
        )
        self.remove_callback(PrinterCallback)
        self.local, self.rows, self.updates, self.watch = local, rows, updates, watch
        self.objective: Objective = objective
        self.options, self.reference = options, reference
        self.in_one_line, self.seed = in_one_line, seed
        self.longest_target = max(len(row.ids) - row.n_prompt for row in rows)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Gradients of this process's share of an update; its part of the loss, float32."""
        share: UpdateShard = inputs["share"]
        rows = self._prepare_rows(share)
        model.train()
        while True:
            try:
                return self._run_update(model, rows, share.weight)
            except (RuntimeError, MemoryError) as exc:
                if not is_out_of_memory(exc):
                    raise
                reason = str(exc).partition("\n")[0]
            self._halve_micro_batch(rows, reason)

    def _prepare_rows(self, share: UpdateShard) -> list[TokenizedSequence]:
        """The rows of a share; an on-policy objective replaces targets by the model's own."""
        rows = [self.rows[i] for i in share.rows]
        get_fraction = self.objective.get_sampled_fraction
        if get_fraction is None:
            return rows
        return sample_targets(
            self.local,
            rows,
            [f"update {self.state.global_step} row {i}" for i in share.rows],
            fraction=get_fraction(self.options, self._progress()),
            seed=self.seed,
            max_new_tokens=self.longest_target,
        )

    def _progress(self) -> float:
        return self.state.global_step / self.state.max_steps

    def _run_update(self, model: Any, rows: Sequence[TokenizedSequence], weight: float) -> Tensor:
        batches = self._split_update(rows)
        total = torch.zeros((), device=self.local.device)
        for k, batch in enumerate(batches, 1):
            apart = self.accelerator.no_sync(model) if k < len(batches) else nullcontext()
            with apart:
                loss = self._loss(model, [rows[i] for i in batch], weight)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _split_update(self, rows: Sequence[TokenizedSequence]) -> list[list[int]]:
        return split_micro_batches([len(row.ids) for row in rows], self.watch.standing.micro_tokens)

    def _loss(self, model: Any, rows: Sequence[TokenizedSequence], weight: float) -> Tensor:
        """This micro-batch's part of the update's loss; processes average theirs, hence the
        factor.
        """
        batch = self._batch(rows)
        arguments = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
        if batch.positions is not None:
            arguments["position_ids"] = batch.positions
        logits = compute_logits_at(model, self.local.model, batch.places, arguments)
        tokens = TokenBatch(
            logits=logits,
            targets=batch.targets,
            weights=batch.weights,
            sequence_ids=batch.sequence_ids,
            reference_logits=self._compute_reference_logits(batch, arguments),
            progress=self._progress(),
        )
        total = self.objective.compute_loss(tokens, self.options)
        return total * self.updates.n_processes / max(weight, TINY)

    def _compute_reference_logits(
        self, batch: MicroBatch, arguments: dict[str, Any]
    ) -> Tensor | None:
        if self.reference is None:
            return None
        return self.reference.compute_logits(batch.places, arguments)

    def _batch(self, rows: Sequence[TokenizedSequence]) -> MicroBatch:
        if self.in_one_line:
            return pack_batch(rows, self.local.device)
        return pad_batch(rows, int(self.local.tokenizer.pad_token_id), self.local.device)

    def _halve_micro_batch(self, rows: Sequence[TokenizedSequence], reason: str) -> None:
        """After memory ran out: half the tokens, then gradient checkpointing, then one sentence."""
        model, standing = self.local.model, self.watch.standing
        model.zero_grad(set_to_none=True)
        free_device_memory()
        longest = max(len(row.ids) for row in rows)
        tokens = min(standing.micro_tokens or sys.maxsize, longest * len(rows))
        if self.updates.n_processes > 1:
            raise InputError(
                f"Memory ran out in one of several processes ({reason}). Set "
                f"runtime.micro_batch_tokens to {tokens // 2} and run the same command again."
            )
        if len(self._split_update(rows)) < len(rows):
            standing.micro_tokens = max(longest, tokens // 2)
            standing.n_halvings += 1
        elif not standing.gradient_checkpointing:
            standing.gradient_checkpointing = True
            self.save_activations()
        else:
            raise InputError(
                f"memory does not hold one row of {longest} tokens ({reason}); lower max_length, "
                "use lora, or take a smaller model"
            )

    def save_activations(self) -> None:
        """Gradient checkpointing from here on."""
        model: Any = self.local.model
        model.enable_input_require_grads()  # or nothing reaches an adapter
        newer = hasattr(model, "activation_checkpointing_enable")
        switch = "activation_checkpointing_enable" if newer else "gradient_checkpointing_enable"
        getattr(model, switch)({"use_reentrant": False})

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """0: counting parameters at every step is slow and nobody asks."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if "loss" in logs:
            self.watch.write(self.state.global_step, logs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.watch.finish_checkpoint()


def _unwrap_single(items: list[UpdateShard]) -> dict[str, UpdateShard]:
    (item,) = items
    return {"share": item}
