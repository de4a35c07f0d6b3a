"""Fine-tuning on labels alone: no teacher, no rationale, nothing to pay."""

from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.train import AnswerRows, build_student_settings, train_student
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return the instructed student after the gold answers of the whole pool. It is asked for the
    answer alone, as it was trained.
    """
    pool, instructed = run.load_pool(), run.instruct_student()
    rows = AnswerRows(size=None, answer_weight=run.recipe.student.answer_weight)
    settings = build_student_settings(run.recipe, rows)
    student = run.make(train_student, settings, instructed, pool, epoch_pool=pool)
    return [
        *run.build_start_arms(instructed),
        Arm(
            METHOD.name, "Student, answers only", student, "student", settings.prompt_mode,
            is_result=True, card_sentence=METHOD.card_sentence,
        ),
    ]  # fmt: skip


METHOD = Method(
    name="answers_only",
    title="Answers only",
    summary="The student learns from the gold answers of the pool, without any teacher.",
    paper="",
    card_sentence="Method: fine-tuning on gold answers, without a teacher.",
    rank=10,
    build=build,
)
