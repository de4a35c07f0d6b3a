"""Whether rows may stand one behind the other without padding: where the architecture keeps them
apart, and does so in fact.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bridgekd.lm.forward import compute_logits_at, eval_mode, token_nll
from bridgekd.lm.load import LocalModel, filter_forward_arguments
from bridgekd.lm.tokenization import TokenizedSequence
from bridgekd.lm.update_schedule import MicroBatch, pack_batch

# Those that compute each row alone. The others compute a mask over the whole line, which costs more
# than the padding it saves: docs/log.md.
VARLEN_ATTENTION = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
NLL_TOLERANCE = 0.1  # nats; bfloat16 rounds a logit of 10 to 0.04


def can_pack(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Whether training goes without padding: the attention works row by row, the rest of the model
    does not mix neighbours, and a probe of two rows has the losses of each row alone.
    """
    implementation = getattr(local.model.config, "_attn_implementation", "")
    return (
        implementation in VARLEN_ATTENTION
        and supports_packing(local)
        and verify_packing(local, rows)
    )


def supports_packing(local: LocalModel) -> bool:
    """Whether the architecture knows rows by positions that start anew: it takes positions and has
    attention layers alone. Short convolutions and state-space layers leak across rows.
    """
    config = local.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    recurrent = any(hasattr(config, name) for name in ("conv_L_cache", "state_size", "ssm_cfg"))
    takes_positions = bool(filter_forward_arguments(local.model, position_ids=None))
    return takes_positions and kinds <= ATTENTION_LAYERS and not recurrent


def verify_packing(local: LocalModel, rows: Sequence[TokenizedSequence]) -> bool:
    """Whether every token of the second of two rows in one line is as likely as it is alone."""
    first, second = (_weigh_all_tokens(row) for row in (rows[0], rows[-1]))
    together = _nll(local, pack_batch([first, second], local.device))[-len(second.ids) + 1 :]
    alone = _nll(local, pack_batch([second], local.device))
    return bool((together - alone).abs().max() <= NLL_TOLERANCE)


def _weigh_all_tokens(row: TokenizedSequence) -> TokenizedSequence:
    return TokenizedSequence(row.ids, (1.0,) * len(row.ids), 0)


@torch.no_grad()
def _nll(local: LocalModel, batch: MicroBatch) -> Tensor:
    model: Any = local.model
    arguments = {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False}
    with eval_mode(model):
        logits = compute_logits_at(model, model, batch.places, arguments)
    return token_nll(logits.float(), batch.targets)
