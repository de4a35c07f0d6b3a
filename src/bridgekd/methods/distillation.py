"""Trainings of the student beside a reference model, whose distribution it follows."""

from collections.abc import Sequence
from importlib.util import find_spec

from bridgekd import lm
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.sources import get_model_and_revision
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.paths import resolve_path
from bridgekd.runs.evidence import make_mixed_rationales
from bridgekd.runs.run import Run
from bridgekd.stages.score_targets import ScoreTargetsSettings, score_targets
from bridgekd.stages.train import (
    RationaleRows,
    TrainSettings,
    build_student_settings,
    train_student,
)
from bridgekd.stages.training_examples import ReferenceSees
from bridgekd.variants import VariantRef, VariantSettings


def train_beside_reference(
    run: Run,
    pool: Artifact,
    student: Artifact,
    rationales: Sequence[Artifact],
    reference: Artifact,
    objective: VariantRef,
    sees: ReferenceSees = "question",
) -> Artifact:
    """Return the student trained on rationales with an objective that has this reference model.

    sees: whether the reference model reads a rationale beside its question. An epoch is as long as
    the pool, as in `Run.train_student`. Raises InputError, before anything is paid, if the
    objective cannot compare the tokens of the student with those of the assistant.
    """
    settings = build_distillation_settings(run, objective, sees)
    check_tokens(run, settings.objective, is_assistant=reference != student)
    rows = make_mixed_rationales(run, pool, student, rationales)
    if not OBJECTIVES.load(settings.objective).needs_logprobs:
        return run.make(
            train_student, settings, student, pool, rows, epoch_pool=pool, reference=reference
        )
    assert isinstance(settings.rows, RationaleRows)
    scoring = ScoreTargetsSettings(
        target_format=settings.rows.target_format,
        sees=sees,
        scoring="transformers" if reference == student else run.recipe.assistant.scoring_backend,
    )
    logprobs = run.make(score_targets, scoring, pool, reference, rows)
    return run.make(
        train_student, settings, student, pool, rows, epoch_pool=pool, target_logprobs=logprobs
    )


def check_tokens(run: Run, objective: VariantSettings, *, is_assistant: bool) -> None:
    """Raise InputError if the objective cannot compare the tokens of student and reference model.

    is_assistant: whether the reference model is the assistant; if not, it is the student.
    """
    if find_spec("torch") is None:  # a plan works without it
        return
    student, assistant = (get_model_and_revision(model) for model in (run.student, run.assistant))
    if OBJECTIVES.load(objective).match_tokens is not None:
        for model in (student, assistant) if is_assistant else (student,):
            lm.check_alignment(model, objective.name)
    elif is_assistant:
        lm.check_shared_vocabulary(student, assistant, objective.name)


def build_distillation_settings(
    run: Run, objective: VariantRef, sees: ReferenceSees = "question"
) -> TrainSettings:
    """Return the settings of such a training. The objective's file is relative to the recipe."""
    if objective.file is not None:
        file = str(resolve_path(run.folder, objective.file))
        objective = objective.model_copy(update={"file": file})
    return build_student_settings(run.recipe, objective=objective, reference_sees=sees)


def build_forward_kl(weight: float, temperature: float) -> VariantRef:
    """Return forward KL with `weight` beside the negative log-likelihood, as in Mentor-KD."""
    options = {"weight": weight, "temperature": temperature}
    return VariantRef.model_validate({"name": "forward_kl", **options})
