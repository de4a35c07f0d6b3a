"""Rows packed into one sequence without padding, and whether a model keeps them separate.

Flash attention computes each packed row separately. On a CPU, `attend_by_row` does the same with
SDPA: one mask over the whole sequence would cost more time than the padding (docs/experiments.md).
A probe confirms that a packed row has the losses of a row alone.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bridgekd.lm.forward import compute_states_at, eval_mode, token_nll
from bridgekd.lm.load import LocalModel, unwrap_model
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import MicroBatch, pack_batch, pad_batch

FLASH_ATTENTION = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ROW_ATTENTION = "bridgekd_attend_by_row"
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
WINDOWS = ("sliding_window", "attention_chunk_size")
# On a CPU, the calls per row cost more than the padding of a small model: 15 % more time at a width
# of 40 and of 96, 15 % less at 576 (measured).
MIN_WIDTH = 256
NLL_TOLERANCE = 0.1  # nats; bfloat16 rounds a logit of 10 to 0.04


def can_pack(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Return whether a training can use packed rows and gets the same losses."""
    has_kernel = local.model.config._attn_implementation in FLASH_ATTENTION
    return (
        (has_kernel or can_attend_by_row(local, rows))
        and supports_packing(local)
        and verify_packing(local, rows)
    )


def can_attend_by_row(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Return whether causal attention within each row is all that the model's layers compute, and
    is faster row by row.

    A window must hold the longest prompt with the longest target, which an objective may sample.
    """
    model = unwrap_model(local.model)
    config = model.config.get_text_config()
    longest = max(r.n_prompt for r in rows) + max(len(r.ids) - r.n_prompt for r in rows)
    return (
        local.device == "cpu"
        and model.config._attn_implementation == "sdpa"
        and int(config.hidden_size) >= MIN_WIDTH
        and all((getattr(config, name, None) or longest) >= longest for name in WINDOWS)
    )


def supports_packing(local: LocalModel) -> bool:
    """Return whether the model takes position ids and row ends and has attention layers only.

    Short convolutions and state-space layers mix neighboring rows.
    """
    parameters = inspect.signature(unwrap_model(local.model).forward).parameters
    takes_row_ends = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    config = local.model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    is_recurrent = any(hasattr(config, name) for name in ("conv_L_cache", "state_size", "ssm_cfg"))
    has_attention_only = layer_types <= ATTENTION_LAYERS and not is_recurrent
    return has_attention_only and takes_row_ends and "position_ids" in parameters


def verify_packing(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Return whether a row has the same loss per token when it is packed after another row."""
    first, second = (
        TokenizedSequence(r.ids, (1.0,) * len(r.ids), n_prompt=0) for r in (rows[0], rows[-1])
    )
    pad_id = int(local.tokenizer.pad_token_id)
    alone = _compute_nll(local, pad_batch([second], pad_id, local.device))
    with separate_rows(local):
        packed = _compute_nll(local, pack_batch([first, second], local.device))
    return bool((packed[-len(alone) :] - alone).abs().max() <= NLL_TOLERANCE)


@contextmanager
def separate_rows(*models: LocalModel) -> Iterator[None]:
    """Let the models keep packed rows separate inside the block, in backward passes, too."""
    configs: list[Any] = [unwrap_model(local.model).config for local in models]
    own = [config._attn_implementation for config in configs]
    for config in configs:
        if config._attn_implementation not in FLASH_ATTENTION:
            config._attn_implementation = ROW_ATTENTION
    try:
        yield
    finally:
        for config, implementation in zip(configs, own, strict=True):
            config._attn_implementation = implementation


def attend_by_row(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return causal attention within each packed row, [1, width, n_heads, head size].

    query, key and value: [1, n_heads, width, head size]. cu_seq_lens_q: [n_rows + 1], where the
    rows start and end. A model that does not pass it on gets attention over the whole sequence, so
    the probe fails.
    """
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    queries, keys, values = (x.split_with_sizes(lengths, 2) for x in (query, key, value))
    outputs = [
        sdpa_attention_forward(module, q, k, v, None, **options)[0]
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(ROW_ATTENTION, attend_by_row)
AttentionMaskInterface.register(ROW_ATTENTION, lambda **_: None)


@torch.no_grad()
def _compute_nll(local: LocalModel, batch: MicroBatch) -> Tensor:
    with eval_mode(local.model):
        _, states, head = compute_states_at(local.model, batch.positions, batch.forward_arguments)
        return head.reduce_logits(states, batch.targets, token_nll)
