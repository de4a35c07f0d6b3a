"""Fine-tuning on gold answers: no teacher, no rationales, no cost."""

from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.row_settings import AnswerRows
from bridgekd.stages.train import build_student_settings, train_student
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return the student trained on the gold answers of the pool. It answers without a rationale,
    as it was trained.
    """
    pool, instructed = run.load_pool(), run.instruct_student()
    rows = AnswerRows(size=None, answer_weight=run.recipe.student.answer_weight)
    settings = build_student_settings(run.recipe, run.folder, rows)
    student = run.make(train_student, settings, instructed, pool, epoch_pool=pool)
    return [
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, answers only", student, settings.prompt_mode),
    ]


METHOD = Method(
    name="answers_only",
    title="Answers only",
    summary="The student learns from the gold answers of the pool, without any teacher.",
    paper="",
    card_sentence="Method: fine-tuning on gold answers, without a teacher.",
    rank=10,
    build=build,
)
