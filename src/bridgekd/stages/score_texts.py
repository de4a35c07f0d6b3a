"""Scores of rationales: the IFD of the student's own (score_ifd), and the loss of those that it
learns from (score_rationales).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact, stage
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.prompts import render_cot_prompt
from bridgekd.recipe import FrozenModel, TokenLimit
from bridgekd.rng import make_rng
from bridgekd.stages.model_backend import (
    ResumableGenerator,
    load_artifact_model,
    wrap_local_model,
)
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.score_pool import ScorePoolStats, write_scores
from bridgekd.stages.token_limit import resolve_token_limit
from bridgekd.stages.training_examples import read_rationales
from bridgekd.throughput import WorkKind


class IFDSettings(FrozenModel):
    max_new_tokens: TokenLimit


class ScoreRationalesSettings(FrozenModel):
    """n_per_domain: the rationales of each domain that are scored, at most."""

    n_per_domain: int
    seed: int


@stage(version=1, kind=WorkKind.GENERATION, title="The student's IFD")
def score_ifd(
    output_dir: Path,
    settings: IFDSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
) -> ScorePoolStats:
    """Write the instruction-following difficulty of the student's own greedy rationales."""
    examples = read_pool(pool)
    prompts = [render_cot_prompt(e) for e in examples]
    max_new_tokens = resolve_token_limit(settings.max_new_tokens, model)
    generator = ResumableGenerator(output_dir, ctx, "student", max_new_tokens)
    local = load_artifact_model(model, ctx)
    texts = generator.generate(wrap_local_model(local), prompts, "write rationales")
    ifd = lm.compute_ifd(
        local,
        list(zip(examples, texts, strict=True)),
        batch_size=ctx.runtime.get_batch_size("student"),
        progress=ctx.progress,
    )
    write_scores(output_dir, examples, ifd)
    return ScorePoolStats(
        n_scored=len(examples),
        mean_difficulty=round(float(ifd.mean()), 4),
        generation=generator.report_speed(),
    )


@stage(version=1, kind=WorkKind.SCORING, title="Loss of the rationales")
def score_rationales(
    output_dir: Path,
    settings: ScoreRationalesSettings,
    ctx: RunContext,
    pool: Artifact,
    model: Artifact,
    rationales: Sequence[Artifact],
) -> ScorePoolStats:
    """Write the loss in nats of one kept rationale of a question, the mean over its tokens, for a
    random sample of each domain. Other questions have no row.
    """
    text_of = {row.id: row.text for row in read_rationales(rationales) if row.kept}
    example_of = index_by_id(read_pool(pool), text_of)
    ids = list(text_of)
    make_rng(settings.seed, "score rationales").shuffle(ids)
    by_domain: dict[str, list[str]] = {}
    for id in ids:
        by_domain.setdefault(example_of[id].domain, []).append(id)
    chosen = [id for ids in by_domain.values() for id in ids[: settings.n_per_domain]]
    examples = [example_of[id] for id in chosen]
    likelihood = lm.estimate_confidence(
        load_artifact_model(model, ctx),
        [(example, text_of[example.id]) for example in examples],
        measure="likelihood",
        batch_size=ctx.runtime.assistant_batch_size,
        progress=ctx.progress,
        label="score rationales",
    )
    loss = -np.log(np.maximum(likelihood, np.finfo(float).tiny))
    write_scores(output_dir, examples, loss)
    return ScorePoolStats(n_scored=len(examples), mean_difficulty=round(float(loss.mean()), 4))
