"""The share of a student's training rationales that it completes word for word."""

from pathlib import Path

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.recipe import FrozenModel
from bridgekd.rng import sample_indices
from bridgekd.stages.model_backend import load_artifact_model
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.stats import ScoredStats
from bridgekd.stages.training_examples import read_rationales
from bridgekd.throughput import WorkKind

SEED = 0  # of the sample of rationales


class MemorizationSettings(FrozenModel):
    """n_rationales: how many of the training rationales are read, at most."""

    n_rationales: int


class MemorizationStats(ScoredStats):
    """Of the sampled rationales: those that the student completes, and those that its base
    model completes. `n_scored` counts the forward passes of both.
    """

    n_rationales: int
    n_memorized: int
    n_base: int


@stage(version=1, kind=WorkKind.SCORING, title="Memorized rationales")
def measure_memorization(
    output_dir: Path,
    settings: MemorizationSettings,
    ctx: RunContext,
    model: Artifact,
    base: Artifact,
) -> MemorizationStats:
    """Count the training rationales of a student that it completes word for word.

    They are those of its last training on rationales. A model without one has no rationale. base:
    the student before any training, whose completions are guesses.
    """
    trained = model
    while trained.has_manifest and not trained.get_inputs("rationales"):
        trained = trained.get_input("model")
    rows = [r for r in read_rationales(trained.get_inputs("rationales")) if r.kept]
    rows = [
        rows[i] for i in sample_indices(SEED, "memorize", n=settings.n_rationales, of=len(rows))
    ]
    if not rows:
        return MemorizationStats(n_scored=1, n_rationales=0, n_memorized=0, n_base=0)
    examples = index_by_id(read_pool(trained.get_input("pool")), (r.id for r in rows))
    pairs = [(examples[r.id], r.text) for r in rows]
    counts = [
        sum(
            lm.find_memorized(
                load_artifact_model(artifact, ctx),
                pairs,
                batch_size=ctx.runtime.get_batch_size("student"),
                progress=ctx.progress,
            )
        )
        for artifact in (model, base)
    ]
    return MemorizationStats(
        n_scored=2 * len(rows), n_rationales=len(rows), n_memorized=counts[0], n_base=counts[1]
    )
