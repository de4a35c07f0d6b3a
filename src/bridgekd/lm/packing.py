"""Whether rows may stand one behind the other without padding: where the architecture keeps them
apart, and does so in fact.
"""

from collections.abc import Sequence
from typing import Any

import torch

from bridgekd.lm.encode import Encoded
from bridgekd.lm.forward import evaluating, logits_at, nll
from bridgekd.lm.loading import LocalModel, accepted_arguments
from bridgekd.lm.updates import Batch, one_line

# Those that compute each row alone. The others compute a mask over the whole line, which costs more
# than the padding it saves: docs/log.md.
VARLEN = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
TOLERANCE = 0.02  # of the mean NLL; bfloat16 rounds to 0.004


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
    """Whether the second of two rows in one line has the loss that it has alone."""
    first, second = rows[0], rows[-1]
    together = _mean_nll(local, one_line([first, second], local.device), len_of(second))
    alone = _mean_nll(local, one_line([second], local.device), len_of(second))
    return abs(together - alone) <= TOLERANCE * max(abs(alone), 1e-3)


def len_of(row: Encoded) -> int:
    """How many tokens of the row count."""
    return sum(w > 0 for w in row.weights)


@torch.no_grad()
def _mean_nll(local: LocalModel, batch: Batch, n_last: int) -> float:
    model: Any = local.model
    arguments = {"input_ids": batch.ids, "position_ids": batch.positions, "use_cache": False}
    with evaluating(model):
        logits = logits_at(model, model, batch.places, arguments)
    return float(nll(logits.float(), batch.targets)[-n_last:].mean())
