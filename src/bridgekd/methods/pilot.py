"""The pilot of `plan --pilot`: a small part of the budget, spent on the first questions that
`direct` and `random` would ask, and the accuracy of the models that are trained on the answers.
"""

from collections.abc import Iterator
from typing import Literal

from bridgekd import stages
from bridgekd.core.draws import SEED_STEP
from bridgekd.edges.store import Artifact
from bridgekd.runs import Arm, Run
from bridgekd.stages.pilot import (
    EvaluatePilotSettings,
    HoldOutSettings,
    PilotModelSettings,
    PilotRole,
    SubsampleSettings,
)

NAME = "pilot"  # the method's name in the run's journal

PilotModels = Iterator[tuple[PilotModelSettings, Arm]]


def pilot(run: Run) -> Artifact:
    """What students reach on held-out pool questions: taught directly, via the assistant, and
    without the teacher.
    """
    make, of, options = run.make, run.of, run.recipe.pilot
    part = (0.0, options.budget_fraction)
    pool = run.pool()
    ranking = make(stages.select, of.select_by("random", part), pool)
    limits = HoldOutSettings(
        n=options.n_eval,
        warm_up=None if run.warmed(pool) == run.assistant else of.warm_up,
        min_fraction=options.budget_grid[0],
    )
    held_out = make(stages.hold_out, limits, pool, ranking)
    answers = make(stages.query_teacher, of.query_part(part), pool, ranking, *run.shots)
    rationales = make(stages.check, of.check, pool, answers, run.judge(pool))

    models = [
        *_train_without_teacher(run, pool, held_out),
        *_train_on_parts(run, pool, held_out, rationales),
    ]
    predictions = [run.answered(arm, held_out, held_out) for _, arm in models]
    settings = EvaluatePilotSettings(models=tuple(model for model, _ in models))
    return make(stages.evaluate_pilot, settings, held_out, rationales, *predictions)


def _train_without_teacher(run: Run, pool: Artifact, held_out: Artifact) -> PilotModels:
    """The students that cost no query."""
    instructed = run.instructed()
    if instructed != run.student:
        yield PilotModelSettings(role="base"), Arm(run.student, "student")
    yield PilotModelSettings(role="instructed"), Arm(instructed, "student", ask=run.student_ask)
    if not run.recipe.data.unlabelled:
        settings = run.of.train_on_answers
        student = run.make(stages.train_on_answers, settings, held_out, instructed, pool)
        yield PilotModelSettings(role="answers_only"), Arm(student, "student", ask="answer")


def _train_on_parts(
    run: Run, pool: Artifact, held_out: Artifact, rationales: Artifact
) -> PilotModels:
    """For every part of the purchase and every seed: the student taught directly, the assistant,
    and the student taught via that assistant.
    """
    base, assistant_base = run.instructed(), run.warmed(pool)

    def label(role: PilotRole) -> PilotModelSettings:
        return PilotModelSettings(role=role, fraction=fraction)

    for fraction in run.recipe.pilot.budget_grid:
        part = run.make(stages.subsample, SubsampleSettings(fraction=fraction), rationales)
        for seed in range(run.recipe.pilot.n_seeds):
            direct = _train(run, "student", seed, pool, base, part)
            assistant = _train(run, "assistant", seed, pool, assistant_base, part)
            taught = run.make(stages.annotate, run.of.annotate, held_out, assistant)
            via_assistant = _train(run, "student", seed, pool, base, taught)
            yield label("direct"), Arm(direct, "student", ask=run.student_ask)
            yield label("assistant"), Arm(assistant, "assistant")
            yield label("via_assistant"), Arm(via_assistant, "student", ask=run.student_ask)


def _train(
    run: Run,
    size: Literal["student", "assistant"],
    seed: int,
    pool: Artifact,
    model: Artifact,
    rationales: Artifact,
) -> Artifact:
    """A training with the settings of a run; another seed shuffles the same rows differently."""
    work, settings = stages.train_student, run.of.train_student
    if size == "assistant":
        work, settings = stages.train_assistant, run.of.train_assistant
    settings = settings.model_copy(update={"seed": settings.seed + SEED_STEP * seed})
    return run.make(work, settings, pool, model, rationales)
