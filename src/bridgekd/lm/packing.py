"""Whether rows can be packed into one sequence without padding.

The architecture must keep packed rows separate, and a probe must confirm it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bridgekd.lm.forward import compute_states_at, eval_mode, token_nll
from bridgekd.lm.load import LocalModel, supports_argument
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import MicroBatch, pack_batch

# These compute each row separately. The others compute a mask over the whole sequence, which costs
# more time than the padding that packing saves: docs/log.md.
VARLEN_ATTENTION = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
NLL_TOLERANCE = 0.1  # nats; bfloat16 rounds a logit of 10 to 0.04


def can_pack(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Return whether a training can use packed rows and gets the same losses."""
    implementation = getattr(local.model.config, "_attn_implementation", "")
    return (
        implementation in VARLEN_ATTENTION
        and supports_packing(local)
        and verify_packing(local, rows)
    )


def supports_packing(local: LocalModel) -> bool:
    """Return whether the model takes position ids and has attention layers only.

    Short convolutions and state-space layers mix neighboring rows.
    """
    config = local.model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    is_recurrent = any(hasattr(config, name) for name in ("conv_L_cache", "state_size", "ssm_cfg"))
    has_attention_only = layer_types <= ATTENTION_LAYERS and not is_recurrent
    return has_attention_only and supports_argument(local.model, "position_ids")


def verify_packing(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Return whether a row has the same loss per token when it is packed after another row."""
    first, second = (replace(r, weights=(1.0,) * len(r.ids)) for r in (rows[0], rows[-1]))
    packed = _compute_nll(local, pack_batch([first, second], local.device))
    alone = _compute_nll(local, pack_batch([second], local.device))
    return bool((packed[-len(alone) :] - alone).abs().max() <= NLL_TOLERANCE)


@torch.no_grad()
def _compute_nll(local: LocalModel, batch: MicroBatch) -> Tensor:
    with eval_mode(local.model):
        _, states, head = compute_states_at(local.model, batch.positions, batch.forward_arguments)
        return head.reduce_logits(states, batch.targets, token_nll)
