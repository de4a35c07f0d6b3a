"""Which of the teacher's answers become rationales."""

from pathlib import Path
from typing import Literal

from bridgekd.grading.grade import check_rationale
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_pool
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.recipe import ConfidenceOptions, Recipe
from bridgekd.records import Completion, Rationale
from bridgekd.stages.model_backend import BackendSettings, open_backend
from bridgekd.stages.rationale_filters import filter_by_confidence
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import CalibrationStats, KeptStats

CheckRule = Literal["correct", "confident", "all"]


class CheckSettings(BackendSettings):
    """`confidence` is None where the assistant scores no rationale."""

    filter: CheckRule
    confidence: ConfidenceOptions | None


class CheckStats(KeptStats, CalibrationStats):
    n_dropped: int


def build_check_settings(recipe: Recipe, rule: CheckRule | None = None) -> CheckSettings:
    """Return what a check depends on; `rule` replaces the recipe's check.filter."""
    keep = rule or recipe.check.filter
    if keep != "confident":
        return CheckSettings(filter=keep, confidence=None)
    return CheckSettings(
        filter=keep, confidence=recipe.confidence, scoring=recipe.assistant.scoring_backend
    )


@stage(version=2, title="The teacher's rationales")
def check_rationales(
    output_dir: Path,
    settings: CheckSettings,
    ctx: RunContext,
    pool: Artifact,
    completions: Artifact,
    model: Artifact | None = None,
) -> CheckStats:
    """The teacher's answers as rationales, kept or dropped with a reason; all stay paid. Under
    `confident` the assistant, `model`, scores them.
    """
    answers = read_rows(completions.path / "completions.parquet", Completion)
    answer_type = read_answer_type(pool)
    by_id = index_by_id(read_pool(pool), (c.id for c in answers))
    calibration = None
    rows = [
        check_rationale(
            by_id[c.id],
            c.text or c.reasoning,
            answer_type,
            "teacher",
            settings.filter,
            state=c.state,
        )
        for c in answers
    ]
    if settings.confidence is not None and model is not None:
        examples = [by_id[r.id] for r in rows]
        with open_backend(model, settings.scoring, output_dir, ctx) as judge:
            rows, calibration = filter_by_confidence(
                rows, examples, judge, settings.confidence, answer_type=answer_type, live=ctx,
                batch_size=ctx.runtime.assistant_batch_size,
            )  # fmt: skip
    write_rows(output_dir / "rationales.parquet", Rationale, rows)
    n_kept = sum(r.kept for r in rows)
    return CheckStats(n_kept=n_kept, n_dropped=len(rows) - n_kept, calibration=calibration)
