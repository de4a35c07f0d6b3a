"""The pilot of `plan --pilot`: spend a small part of the budget on the first questions that
`direct` and `bridge_random` select, and measure the models that are trained on the answers.
"""

from collections.abc import Iterator

from bridgekd.io.artifact_store import Artifact
from bridgekd.rng import SEED_STEP
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.early_stopping import PromptMode
from bridgekd.stages.pilot import (
    EvaluatePilotSettings,
    HoldOutSettings,
    PilotModelSettings,
    PilotRole,
    SubsampleSettings,
    evaluate_pilot,
    hold_out,
    subsample,
)
from bridgekd.stages.row_settings import AnswerRows
from bridgekd.stages.train import build_student_settings, build_warm_up_settings, train_student

NAME = "pilot"  # the method's name in the run's metadata

PilotModels = Iterator[tuple[PilotModelSettings, Arm]]


def pilot(run: Run) -> Artifact:
    """Return the accuracy of students on held-out pool questions: taught directly, via the
    assistant, and without the teacher.
    """
    options = run.recipe.pilot
    budget_slice = (0.0, options.budget_fraction)
    pool = run.load_pool()
    is_warmed_up = run.warm_up(pool) != run.assistant
    ranking = run.select_questions(pool, strategy="random", budget_slice=budget_slice)
    hold_out_settings = HoldOutSettings(
        n=options.n_eval,
        warm_up=build_warm_up_settings(run.recipe) if is_warmed_up else None,
        min_fraction=options.budget_grid[0],
    )
    held_out = run.make(hold_out, hold_out_settings, pool, ranking)
    answers = run.query_teacher(pool, ranking, budget_slice=budget_slice)
    rationales = run.check_rationales(pool, answers)

    models = [
        *_train_without_teacher(run, pool, held_out),
        *_train_with_teacher(run, pool, held_out, rationales),
    ]
    predictions = [run.predict(arm, held_out, held_out) for _, arm in models]
    settings = EvaluatePilotSettings(models=tuple(model for model, _ in models))
    return run.make(evaluate_pilot, settings, held_out, rationales, *predictions)


def _train_without_teacher(run: Run, pool: Artifact, held_out: Artifact) -> PilotModels:
    """Yield the students that need no query."""
    instructed = run.instruct_student()
    if instructed != run.student:
        yield _label("base", run.student)
    yield _label("instructed", instructed, run.student_prompt_mode)
    if not run.recipe.data.unlabeled:
        rows = AnswerRows(size=None, answer_weight=run.recipe.student.answer_weight)
        settings = build_student_settings(run.recipe, run.folder, rows)
        student = run.make(train_student, settings, instructed, held_out, epoch_pool=pool)
        yield _label("answers_only", student, settings.prompt_mode)


def _train_with_teacher(
    run: Run, pool: Artifact, held_out: Artifact, rationales: Artifact
) -> PilotModels:
    """Yield, for every fraction of the rationales and every seed, the student taught directly, the
    assistant, and the student taught via that assistant.
    """
    instructed, warm, mode = run.instruct_student(), run.warm_up(pool), run.student_prompt_mode
    for fraction in run.recipe.pilot.budget_grid:
        sample = run.make(subsample, SubsampleSettings(fraction=fraction), rationales)
        for seed in range(run.recipe.pilot.n_seeds):
            offset = SEED_STEP * seed  # shuffles the same rows differently
            direct = run.train_student(pool, instructed, [sample], offset)
            assistant = run.train_assistant(pool, warm, [sample], offset)
            annotated = run.annotate(held_out, assistant)
            via_assistant = run.train_student(pool, instructed, [annotated], offset)
            yield _label("direct", direct, mode, fraction)
            yield _label("assistant", assistant, fraction=fraction)
            yield _label("via_assistant", via_assistant, mode, fraction)


def _label(
    role: PilotRole, model: Artifact, mode: PromptMode = "cot", fraction: float = 0.0
) -> tuple[PilotModelSettings, Arm]:
    arm = Arm(role, role, model, "assistant" if role == "assistant" else "student", mode)
    return PilotModelSettings(role=role, fraction=fraction), arm
