"""Direct distillation (Distilling Step-by-Step, arXiv 2305.02301): the student learns from the
teacher's own rationales.
"""

from bridgekd.methods import Method
from bridgekd.recipe import CountOrPercent
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build_direct(
    run: Run, method: Method, title: str, queries: CountOrPercent | None = None
) -> list[Arm]:
    """Return a student trained on the teacher's answers to sampled questions. `queries` replaces
    that limit of the recipe's budget.
    """
    pool = run.load_pool()
    ranking = run.select_questions(pool, strategy="random", queries=queries)
    completions = run.query_teacher(pool, ranking, queries=queries)
    rationales = run.check_rationales(pool, completions)
    instructed = run.instruct_student()
    student = run.train_student(pool, instructed, [rationales])
    return [
        *run.build_start_arms(instructed),
        method.build_result_arm(title, student, run.student_prompt_mode),
    ]


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return direct distillation with the recipe's budget."""
    return build_direct(run, METHOD, "Student, direct")


METHOD = Method(
    name="direct",
    title="Direct distillation",
    summary="The student learns from the teacher's answers to sampled questions: the reference.",
    paper="arXiv 2305.02301",
    card_sentence="Method: direct distillation (arXiv 2305.02301). The student learned from the "
    "teacher's own rationales for questions drawn at random.",
    rank=30,
    build=build,
)
