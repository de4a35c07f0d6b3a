"""What a training reports; free of torch, so that plans and reports can read it."""

from pydantic import BaseModel, ConfigDict


class TrainingLog(BaseModel):
    """What a training did. `n_rows` were trained on; `n_too_long` were left out, `n_cut` shortened.

    `n_tokens` counts prompt and target tokens, `n_target_tokens` those that are learnt, without
    padding, over all updates. `validations` holds (update, value) pairs; `best_update` is the
    update whose weights were saved. `seconds` counts every try of a training that was resumed at
    update `resumed_at`, `tokens_per_s` the last try alone. The rest says how updates were cut up in
    the end, and how often memory ran out on the way.
    """

    model_config = ConfigDict(frozen=True)

    n_rows: int
    n_too_long: int
    n_truncated: int
    n_tokens: int
    n_target_tokens: int
    n_updates: int
    best_update: int
    validations: tuple[tuple[int, float], ...]
    seconds: float
    tokens_per_s: float
    resumed_at: int
    micro_tokens: int | None
    n_halvings: int
    gradient_checkpointing: bool
    padding_free: bool
    n_processes: int
    used_reference: bool = False  # whether the objective had logits of a reference model
