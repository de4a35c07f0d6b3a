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

from bridgekd.errors import BadInput
from bridgekd.lm.encode import Encoded
from bridgekd.lm.forward import logits_at
from bridgekd.lm.loading import LocalModel
from bridgekd.lm.memory import free_device_memory, is_out_of_memory
from bridgekd.lm.objectives import Objective, TokenBatch
from bridgekd.lm.reference_model import ReferenceModel
from bridgekd.lm.updates import Batch, Share, Updates, micro_batches, one_line, rectangle
from bridgekd.lm.watching import Watch

TINY = torch.finfo(torch.float32).tiny


class UpdateTrainer(Trainer):
    """Trainer with our loss, our micro-batches and our log."""

    loss_is_scaled_for_ga = True  # divided by the weight of the whole update

    def __init__(
        self,
        local: LocalModel,
        rows: Sequence[Encoded],
        updates: Updates,
        watch: Watch,
        arguments: Any,
        *,
        objective: Objective,
        options: BaseModel,
        reference: ReferenceModel | None = None,
        in_one_line: bool = False,
    ) -> None:
        super().__init__(
            model=local.model,
            args=arguments,
            train_dataset=updates,
            data_collator=_only,
            callbacks=[watch],
        )
        self.remove_callback(PrinterCallback)
        self.local, self.rows, self.updates, self.watch = local, rows, updates, watch
        self.objective: Objective = objective
        self.options, self.reference = options, reference
        self.in_one_line = in_one_line

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Gradients of this process's share of an update; its part of the loss, float32."""
        model.train()
        share: Share = inputs["share"]
        while True:
            try:
                return self._worked_through(model, share)
            except (RuntimeError, MemoryError) as exc:
                if not is_out_of_memory(exc):
                    raise
                reason = str(exc).partition("\n")[0]
            self._cut_finer(share, reason)

    def _worked_through(self, model: Any, share: Share) -> Tensor:
        batches = self._cut(share)
        total = torch.zeros((), device=self.local.device)
        for k, rows in enumerate(batches, 1):
            apart = self.accelerator.no_sync(model) if k < len(batches) else nullcontext()
            with apart:
                loss = self._loss(model, [self.rows[i] for i in rows], share.weight)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _cut(self, share: Share) -> list[list[int]]:
        return micro_batches(share, self.updates.lengths, self.watch.standing.micro_tokens)

    def _loss(self, model: Any, rows: Sequence[Encoded], weight: float) -> Tensor:
        """This micro-batch's part of the update's loss; processes average theirs, hence the
        factor.
        """
        batch = self._batch(rows)
        arguments = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
        if batch.positions is not None:
            arguments["position_ids"] = batch.positions
        logits = logits_at(model, self.local.model, batch.places, arguments)
        tokens = TokenBatch(
            logits=logits,
            targets=batch.targets,
            weights=batch.weights,
            sequence_ids=batch.sequence_ids,
            reference_logits=self._compute_reference_logits(batch, arguments),
            progress=self.state.global_step / self.state.max_steps,
        )
        total = self.objective.compute_loss(tokens, self.options)
        return total * self.updates.n_processes / max(weight, TINY)

    def _compute_reference_logits(self, batch: Batch, arguments: dict[str, Any]) -> Tensor | None:
        if self.reference is None:
            return None
        return self.reference.compute_logits(batch.places, arguments)

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        if self.in_one_line:
            return one_line(rows, self.local.device)
        return rectangle(rows, int(self.local.tokenizer.pad_token_id), self.local.device)

    def _cut_finer(self, share: Share, reason: str) -> None:
        """After memory ran out: half the tokens, then gradient checkpointing, then one sentence."""
        model, standing = self.local.model, self.watch.standing
        model.zero_grad(set_to_none=True)
        free_device_memory()
        longest = int(self.updates.lengths[list(share.rows)].max())
        tokens = min(standing.micro_tokens or sys.maxsize, longest * len(share.rows))
        if self.updates.n_processes > 1:
            raise BadInput(
                f"Memory ran out in one of several processes ({reason}). Set "
                f"runtime.micro_batch_tokens to {tokens // 2} and run the same command again."
            )
        if len(self._cut(share)) < len(share.rows):
            standing.micro_tokens = max(longest, tokens // 2)
            standing.n_halved += 1
        elif not standing.gradient_checkpointing:
            standing.gradient_checkpointing = True
            self.save_activations()
        else:
            raise BadInput(
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
        self.watch.mark_checkpoint()


def _only(items: list[Share]) -> dict[str, Share]:
    (item,) = items
    return {"share": item}
