"""What a reference model gives the targets of a training: computed once, for every student."""

from collections.abc import Sequence
from pathlib import Path

from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.row_files import read_rows, write_rows
from bridgekd.records import TargetLogprobs
from bridgekd.stages.model_backend import BackendSettings, open_backend
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import ScoredStats
from bridgekd.stages.training_examples import (
    ReferenceSees,
    build_rationale_sequences,
)
from bridgekd.throughput import WorkKind
from bridgekd.variants import VariantSettings

FILE = "logprobs.parquet"


class ScoreTargetsSettings(BackendSettings):
    """sees: what the model reads beside the question."""

    target_format: VariantSettings
    sees: ReferenceSees = "question"


class ScoreTargetsStats(ScoredStats):
    """n_tokens: of the different targets, with end tokens. mean_logprob: of a token, in nats."""

    n_tokens: int
    mean_logprob: float


@stage(version=1, kind=WorkKind.SCORING, title="Log-probabilities of the rationales")
def score_targets(
    output_dir: Path,
    settings: ScoreTargetsSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    rationales: Sequence[Artifact],
) -> ScoreTargetsStats:
    """Write the log-probability of every token of every kept rationale, once for equal ones. A
    killed stage that runs again writes the same numbers.
    """
    sequences = build_rationale_sequences(
        pool, rationales, settings.target_format, sees=settings.sees
    )
    unique = list({s.key: s for s in sequences}.values())
    with open_backend(model, settings.scoring, output_dir, ctx) as backend:
        rows = backend.score_targets(
            unique,
            batch_size=ctx.runtime.assistant_batch_size,
            progress=ctx.progress,
            label="score targets",
        )
    write_rows(output_dir / FILE, TargetLogprobs, rows)
    n_tokens = sum(len(row.logprobs) for row in rows)
    total = sum(sum(row.logprobs) for row in rows)
    return ScoreTargetsStats(
        n_scored=len(rows), n_tokens=n_tokens, mean_logprob=round(total / n_tokens, 4)
    )


def read_target_logprobs(artifact: Artifact) -> dict[str, TargetLogprobs]:
    """Return the rows of such a stage by the key of a sequence."""
    return {row.key: row for row in read_rows(artifact.path / FILE, TargetLogprobs)}
