"""Trainings of the student beside a reference model, or by rewards."""

from collections.abc import Sequence
from importlib.util import find_spec

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.sources import get_model_and_revision
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.runs.evidence import make_mixed_rationales
from bridgekd.runs.run import Run
from bridgekd.stages.row_settings import QuestionRows, RationaleRows
from bridgekd.stages.score_targets import ScoreTargetsSettings, score_targets
from bridgekd.stages.train import (
    TrainSettings,
    build_student_settings,
    train_student,
)
from bridgekd.stages.training_examples import ReferenceSees
from bridgekd.variants import VariantRef


def train_beside_reference(
    run: Run,
    pool: Artifact,
    student: Artifact,
    rationales: Sequence[Artifact],
    reference: Artifact,
    objective: VariantRef,
    sees: ReferenceSees = "question",
    part: tuple[float, float] = (0.0, 1.0),
    sft_fraction: float = 0.0,
) -> Artifact:
    """Return the student trained on rationales with an objective that has this reference model.

    sees: whether the reference model reads a rationale beside its question. part: the training is
    that part of student.train. sft_fraction: the fraction of it in which the student learns the
    rationales as in `bridge_random`, before its own texts are of use. An epoch is as long as the
    pool, as in `Run.train_student`. Raises InputError, before anything is paid, if the objective
    cannot compare the tokens of the student with those of the assistant.
    """
    is_student = reference == student
    check_tokens(run, objective, is_assistant=not is_student)
    settings = build_distillation_settings(run, objective, sees)
    _check_rewards(settings)
    rows = make_mixed_rationales(run, pool, student, rationales)
    if sft_fraction:
        middle = part[0] + sft_fraction * (part[1] - part[0])
        student = start_student(run, pool, student, rows, (part[0], middle))
        part = middle, part[1]
    if part != (0.0, 1.0):
        settings = settings.model_copy(update={"part": part})
    if not OBJECTIVES.load(settings.objective).needs_logprobs:
        return run.make(
            train_student, settings, student, pool, rows, epoch_pool=pool, reference=reference
        )
    assert isinstance(settings.rows, RationaleRows)
    scoring = ScoreTargetsSettings(
        target_format=settings.rows.target_format,
        sees=sees,
        scoring="transformers" if is_student else run.recipe.assistant.scoring_backend,
    )
    logprobs = run.make(score_targets, scoring, pool, reference, rows)
    return run.make(
        train_student, settings, student, pool, rows, epoch_pool=pool, target_logprobs=logprobs
    )


def _check_rewards(settings: TrainSettings) -> None:
    if OBJECTIVES.load(settings.objective).needs_reward:
        raise InputError(
            f"The objective {settings.objective.name} needs rewards, which a training on "
            "rationales has not. Use another objective, or a method with rewards (`bridgekd list "
            "methods`)."
        )


def check_tokens(run: Run, ref: VariantRef, *, is_assistant: bool = True) -> None:
    """Raise InputError if an objective cannot compare the tokens of student and reference model.

    is_assistant: whether the reference model is the assistant; if not, it is the student.
    """
    if find_spec("torch") is None:  # a plan works without it
        return
    objective = OBJECTIVES.load(OBJECTIVES.resolve(ref, run.folder))
    student, assistant = (get_model_and_revision(model) for model in (run.student, run.assistant))
    if objective.match_tokens is not None:
        for model in (student, assistant) if is_assistant else (student,):
            lm.check_alignment(model, objective.name)
    elif is_assistant:
        lm.check_shared_vocabulary(student, assistant, objective.name)


def build_distillation_settings(
    run: Run, objective: VariantRef, sees: ReferenceSees = "question"
) -> TrainSettings:
    """Return the settings of such a training. The objective's file is relative to the recipe."""
    return build_student_settings(run.recipe, run.folder, objective=objective, reference_sees=sees)


def build_forward_kl(weight: float, temperature: float) -> VariantRef:
    """Return forward KL with `weight` beside the negative log-likelihood, as in Mentor-KD."""
    options = {"weight": weight, "temperature": temperature}
    return VariantRef.model_validate({"name": "forward_kl", **options})


def start_student(
    run: Run,
    pool: Artifact,
    student: Artifact,
    rows: Sequence[Artifact],
    part: tuple[float, float],
) -> Artifact:
    """Return the student after a part of the training of `bridge_random` on mixed rationales."""
    settings = build_student_settings(run.recipe, run.folder)
    settings = settings.model_copy(update={"part": part})
    return run.make(train_student, settings, student, pool, rows, epoch_pool=pool)


def train_by_rewards(
    run: Run,
    pool: Artifact,
    student: Artifact,
    objective: VariantRef,
    reference: Artifact | None = None,
    part: tuple[float, float] | None = None,
) -> Artifact:
    """Return the student trained on texts of its own to the questions of the pool that have a gold
    answer: a text with this answer has reward 1, another one 0. No teacher is asked.

    part: the training is that part of student.train, without its holdout_size.
    """
    settings = build_student_settings(run.recipe, run.folder, QuestionRows(), objective)
    # The loss of held-out gold answers says nothing of the texts that the student writes.
    train = settings.train.model_copy(update={"holdout_size": None})
    settings = settings.model_copy(update={"part": part, "train": train})
    return run.make(train_student, settings, student, pool, epoch_pool=pool, reference=reference)
