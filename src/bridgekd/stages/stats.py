"""What several stages report in the same way. A stage's own class is beside the stage."""

from bridgekd.io.artifact_store import Stats
from bridgekd.lm.training_job import TrainingLog
from bridgekd.stats.calibration import Calibration
from bridgekd.throughput import GenerationSpeed


class GenerationStats(Stats):
    """Of a stage that generates; `prompt_format` says how a server took its prompts."""

    generation: GenerationSpeed | None = None
    prompt_format: str | None = None


class CalibrationStats(Stats):
    """Of a stage that weighs rationales, where gold answers are there to hold them against."""

    calibration: Calibration | None = None


class KeptStats(Stats):
    """Of a stage that lets rationales through."""

    n_kept: int


class PurchaseStats(Stats):
    """Of a stage that pays. What was charged is the same for a warm ledger and a cold one; what was
    newly sent is not.
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
    """Of a training, and of what it generated for early stopping."""
