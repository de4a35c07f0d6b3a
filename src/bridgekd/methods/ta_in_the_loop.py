"""Teaching-Assistant-in-the-Loop (arXiv 2406.05322): an imperfect teacher, a low budget, three
signals.
"""

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.errors import InputError
from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.score_pool import build_uncertainty_settings, score_student_uncertainty


class TALoopOptions(BaseModel):
    """`warm_up_fraction` of the budget is spent at random and warms the student up. `n_samples`
    answers per question measure its uncertainty. `filter_by_confidence`: the assistant's confidence
    decides what enters the training, in place of check.filter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    warm_up_fraction: float = Field(0.3, gt=0, lt=1)
    n_samples: int = Field(5, ge=2, le=64)
    filter_by_confidence: bool = True


def build(run: Run, options: TALoopOptions) -> list[Arm]:
    """Return the student. How uncertain it is after its warm-up (signals 1 and 2) selects the rest
    of the questions; the assistant's confidence (signal 3) filters what it learns from.
    """
    if options.filter_by_confidence and run.recipe.budget.accepted_rationales is not None:
        raise InputError(
            "budget.accepted_rationales is counted when an answer arrives, before the filter of "
            f"{METHOD.name}"
            ". Set the method's filter_by_confidence to false, or limit queries."
        )
    pool, instructed = run.load_pool(), run.instruct_student()
    assistant = run.warm_up(pool)
    rule = "confident" if options.filter_by_confidence else run.recipe.check.filter
    first, rest = (0.0, options.warm_up_fraction), (options.warm_up_fraction, 1.0)

    ranking = run.select_questions(pool, strategy="random", part=first)
    answers = run.query_teacher(pool, ranking, part=first)
    rationales = [run.check_rationales(pool, answers, rule)]
    student = run.train_student(pool, instructed, rationales)

    settings = build_uncertainty_settings(run.recipe, options.n_samples)
    scores = run.make(score_student_uncertainty, settings, pool, student, assistant)
    ranking = run.select_questions(pool, scores, None, [answers], strategy="hardest", part=rest)
    more = run.query_teacher(pool, ranking, part=rest)
    rationales = [*rationales, run.check_rationales(pool, more, rule)]
    student = run.train_student(pool, instructed, rationales)
    return [
        *run.build_start_arms(instructed),
        Arm(
            METHOD.name, "Student, TA-in-the-Loop", student, "student", run.student_prompt_mode,
            is_result=True, card_sentence=METHOD.card_sentence,
        ),
    ]  # fmt: skip


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
