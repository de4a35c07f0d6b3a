"""Stats that several stages report. The stats of one stage are in the stage's module."""

from bridgekd.io.artifact_store import Stats
from bridgekd.lm.training_job import TrainingLog
from bridgekd.stats.calibration import Calibration
from bridgekd.throughput import GenerationSpeed


class GenerationStats(Stats):
    """Of a stage that generates. `prompt_format`: how a server takes prompts, else None."""

    generation: GenerationSpeed | None = None
    prompt_format: str | None = None


class CalibrationStats(Stats):
    """Of a stage that measures confidence. None without gold answers."""

    calibration: Calibration | None = None


class KeptStats(Stats):
    """Of a stage that filters rationales."""

    n_kept: int


class PurchaseStats(Stats):
    """Of a paid stage. `spend_microusd` is what the answers cost when they were purchased, so it is
    the same whether the ledger had them already or not. `new_spend_microusd` is not.
    """

    n_queries: int
    spend_microusd: int
    n_tokens: int
    stop_reason: str
    n_requests_sent: int
    n_reused: int
    new_spend_microusd: int
    n_unrecorded: int | None = None


class TrainStats(TrainingLog, GenerationStats):
    """Of a training, and of the generation for its early stopping."""
