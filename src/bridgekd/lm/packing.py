"""Whether rows may stand one behind the other without padding: where the architecture keeps them
apart, and does so in fact.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bridgekd.lm.encode import Encoded
from bridgekd.lm.forward import evaluating, logits_at, nll
from bridgekd.lm.loading import LocalModel, accepted_arguments
from bridgekd.lm.updates import Batch, one_line

# Those that compute each row alone. The others compute a mask over the whole line, which costs more
# than the padding it saves: docs/log.md.
VARLEN = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
TOLERANCE = 0.1  # nats; bfloat16 rounds a logit of 10 to 0.04


def packs(local: LocalModel, rows: Sequence[Encoded]) -> bool:
    """Whether training goes without padding: the attention works row by row, the rest of the model
    does not mix neighbours, and a probe of two rows has the losses of each row alone.
    """
    implementation = getattr(local.model.config, "_attn_implementation", "")
    return implementation in VARLEN and keeps_apart(local) and holds_apart(local, rows)


def keeps_apart(local: LocalModel) -> bool:
    """Whether the architecture knows rows by positions that start anew: it takes positions and has
    attention layers alone. Short convolutions and state-space layers leak across rows.
    """
    config = local.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    recurrent = any(hasattr(config, name) for name in ("conv_L_cache", "state_size", "ssm_cfg"))
    takes_positions = bool(accepted_arguments(local.model, position_ids=None))
    return takes_positions and kinds <= ATTENTION and not recurrent


def holds_apart(local: LocalModel, rows: Sequence[Encoded]) -> bool:
    """Whether every token of the second of two rows in one line is as likely as it is alone."""
    first, second = (_all_counted(row) for row in (rows[0], rows[-1]))
    together = _nll(local, one_line([first, second], local.device))[-len(second.ids) + 1 :]
    alone = _nll(local, one_line([second], local.device))
    return bool((together - alone).abs().max() <= TOLERANCE)


def _all_counted(row: Encoded) -> Encoded:
    return Encoded(row.ids, (1.0,) * len(row.ids), 0)


@torch.no_grad()
def _nll(local: LocalModel, batch: Batch) -> Tensor:
    model: Any = local.model
    arguments = {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False}
    with evaluating(model):
        logits = logits_at(model, model, batch.places, arguments)
    return nll(logits.float(), batch.targets)
