"""What a measure of difficulty, a mixture or the student needs beside the warm assistant."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridgekd.io.artifact_store import Artifact
from bridgekd.rationales.keep_all import SELECTOR as KEEP_ALL
from bridgekd.recipe import Role
from bridgekd.stages.annotate import (
    build_sample_settings,
    build_student_sample_settings,
    sample_rationales,
)
from bridgekd.stages.group_evidence import count_mixture_samples, needs_losses
from bridgekd.stages.mix_rationales import build_mix_settings, mix_rationales
from bridgekd.stages.row_settings import HALVES
from bridgekd.stages.score_pool import (
    build_loss_settings,
    build_score_pool_settings,
    count_committee,
    count_pool_samples,
    needs_halves,
    score_pool,
)
from bridgekd.stages.select_rationales import (
    build_select_rationales_settings,
    select_rationales,
)
from bridgekd.stages.shorten_rationales import build_shorten_settings, shorten_rationales
from bridgekd.stages.train import build_half_settings, train_half
from bridgekd.variants import VariantSettings

if TYPE_CHECKING:
    from bridgekd.runs.run import Run


def make_scores(run: "Run", pool: Artifact, assistant: Artifact) -> Artifact:
    """Return the difficulty of the pool for this assistant, by the recipe's measure."""
    settings = build_score_pool_settings(run.recipe, run.folder)
    members = [run.warm_up(pool, member) for member in range(1, count_committee(settings))]
    n_samples = count_pool_samples(settings)
    samples = _sample_untouched(run, pool, n_samples) if n_samples else None
    halves = _train_halves(run, pool) if needs_halves(settings) else []
    return run.make(score_pool, settings, pool, assistant, *members, samples=samples, halves=halves)


def make_selection_evidence(
    run: "Run", pool: Artifact, mixture: VariantSettings | None
) -> tuple[Artifact | None, list[Artifact]]:
    """Return the samples and the losses that the mixture of the quotas needs."""
    if mixture is None:
        return None, []
    n_samples = count_mixture_samples(mixture)
    samples = _sample_untouched(run, pool, n_samples) if n_samples else None
    losses = _score_losses(run, pool, run.instruct_student()) if needs_losses(mixture) else []
    return samples, losses


def make_mixed_rationales(
    run: "Run", pool: Artifact, student: Artifact, rationales: Sequence[Artifact]
) -> Sequence[Artifact]:
    """Return the rationales with the shares of student.mixture, for this student."""
    settings = build_mix_settings(run.recipe, run.folder)
    if settings is None:
        return rationales
    samples: Artifact | None = None
    losses: list[Artifact] = []
    if n_samples := count_mixture_samples(settings.mixture):
        sample_settings = build_student_sample_settings(run.recipe, n_samples)
        samples = run.make(sample_rationales, sample_settings, pool, student)
    if needs_losses(settings.mixture):
        losses = _score_losses(run, pool, student)
    mixed = run.make(mix_rationales, settings, pool, rationales, samples=samples, losses=losses)
    return [mixed]


def make_selected_rationales(
    run: "Run", pool: Artifact, rationales: Sequence[Artifact], assistant: Artifact
) -> Sequence[Artifact]:
    """Return the rationales that student.selector keeps, shortened if student.shorten is set."""
    settings = build_select_rationales_settings(run.recipe, run.folder)
    if settings.load_selector() is not KEEP_ALL:
        rationales = [
            run.make(select_rationales, settings, pool, rationales, run.student, assistant)
        ]
    shorten = build_shorten_settings(run.recipe)
    if shorten is None:
        return rationales
    return [run.make(shorten_rationales, shorten, pool, rationales, assistant)]


def _sample_untouched(run: "Run", pool: Artifact, n_samples: int) -> Artifact:
    """Return `n_samples` rationales per question of the assistant before its warm-up."""
    settings = build_sample_settings(run.recipe, n_samples)
    return run.make(sample_rationales, settings, pool, run.assistant)


def _train_halves(run: "Run", pool: Artifact) -> list[Artifact]:
    """Return for each half of the pool the assistant, warmed up on some of its gold answers, and
    then trained on all of them.
    """
    models, size = [], run.recipe.assistant.warm_up_size
    for half in HALVES:
        before = run.assistant
        if size not in (0, "0%"):
            settings = build_half_settings(run.recipe, half, size)
            before = run.make(train_half, settings, before, pool)
        settings = build_half_settings(run.recipe, half, None)
        models += [before, run.make(train_half, settings, before, pool)]
    return models


def _score_losses(run: "Run", pool: Artifact, student: Artifact) -> list[Artifact]:
    """Return the losses of gold answers for this student and for the warm assistant."""
    models: list[tuple[Role, Artifact]] = [("student", student), ("assistant", run.warm_up(pool))]
    return [
        run.make(score_pool, build_loss_settings(run.recipe, role), pool, model)
        for role, model in models
    ]
