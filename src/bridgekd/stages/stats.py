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


class ScoredStats(Stats):
    """Of a stage that scores questions or texts with a model."""

    n_scored: int


class PurchaseStats(Stats):
    """Of a paid stage. `spend_microusd` is what the answers cost when they were purchased, so it is
    the same whether the ledger had them already or not. `new_spend_microusd` is not.
    `n_without_answer` questions were refused, or failed each time while others were answered.
    `n_at_reserve` rows came without usable token counts.
    """

    n_queries: int
    spend_microusd: int
    n_tokens: int
    stop_reason: str
    n_requests_sent: int
    n_reused: int
    new_spend_microusd: int
    n_unrecorded: int | None = None
    n_without_answer: int = 0
    n_at_reserve: int = 0


def describe_incomplete_answers(
    n_queries: float, n_without_answer: float, n_at_reserve: float
) -> list[str]:
    """Return one sentence about rows without an answer, and one about rows without token counts.

    >>> describe_incomplete_answers(200, 3, 0)
    ['3 of 200 queries ended without an answer: refused, or failed while others were answered.']
    """
    sentences = {
        f"{n_without_answer:,} of {n_queries:,} queries ended without an answer: refused, or "
        "failed while others were answered.": n_without_answer,
        f"{n_at_reserve:,} of {n_queries:,} came without usable token counts, so each is charged "
        "the most that it can cost: the bill may be lower.": n_at_reserve,
    }
    return [sentence for sentence, n in sentences.items() if n]


class TrainStats(TrainingLog, GenerationStats):
    """Of a training, and of the generation for its early stopping."""
