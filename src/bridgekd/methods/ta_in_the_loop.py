"""Teaching-Assistant-in-the-Loop (arXiv 2406.05322): three signals for an imperfect teacher and a
low budget.
"""

from pydantic import Field

from bridgekd.errors import InputError
from bridgekd.methods import Method
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.score_pool import build_uncertainty_settings, score_student_uncertainty


class TALoopOptions(FrozenModel):
    """warm_up_fraction: fraction of the budget for random questions, which warm the student up.
    n_samples: answers per question that measure its uncertainty. filter_by_confidence: filter the
    teacher's rationales by the assistant's confidence, not by check.filter.
    """

    warm_up_fraction: float = Field(0.3, gt=0, lt=1)
    n_samples: int = Field(5, ge=2, le=64)
    filter_by_confidence: bool = True


def build(run: Run, options: TALoopOptions) -> list[Arm]:
    """Return the student. Its uncertainty after the warm-up (signals 1 and 2) selects the rest of
    the questions; the assistant's confidence (signal 3) filters the teacher's rationales.
    """
    if options.filter_by_confidence and run.recipe.budget.accepted_rationales is not None:
        raise InputError(
            "budget.accepted_rationales is counted when an answer arrives, before the filter of "
            f"{METHOD.name}. Set the method's filter_by_confidence to false, or limit queries."
        )
    pool, instructed = run.load_pool(), run.instruct_student()
    assistant = run.warm_up(pool)
    rule = "confident" if options.filter_by_confidence else run.recipe.check.filter
    first, rest = (0.0, options.warm_up_fraction), (options.warm_up_fraction, 1.0)

    ranking = run.select_questions(pool, strategy="random", budget_slice=first)
    answers = run.query_teacher(pool, ranking, budget_slice=first)
    rationales = [run.check_rationales(pool, answers, rule)]
    student = run.train_student(pool, instructed, rationales)

    settings = build_uncertainty_settings(run.recipe, options.n_samples)
    scores = run.make(score_student_uncertainty, settings, pool, student, assistant)
    ranking = run.select_questions(
        pool, scores, earlier=[answers], strategy="hardest", budget_slice=rest
    )
    more_answers = run.query_teacher(pool, ranking, budget_slice=rest)
    rationales.append(run.check_rationales(pool, more_answers, rule))
    student = run.train_student(pool, instructed, rationales)
    return [
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, TA-in-the-Loop", student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="ta_in_the_loop",
    title="TA-in-the-Loop",
    summary="The student's own uncertainty selects the questions, the assistant filters answers.",
    paper="arXiv 2406.05322",
    card_sentence="Method: Teaching-Assistant-in-the-Loop (arXiv 2406.05322). The student learned "
    "from the teacher's own rationales: first for questions drawn at random, then for those that "
    "it was least certain of.",
    options=TALoopOptions,
    rank=80,
    build=build,
)
