"""Teaching-Assistant-in-the-Loop (arXiv 2406.05322): an imperfect teacher, a low budget, three
signals.
"""

from bridgekd import stages
from bridgekd.errors import BadInput
from bridgekd.runs import Arm, Arms, Run


def ta_in_the_loop(run: Run) -> Arms:
    """A share of the budget at random warms the student up; how unsure it then is (signals 1 and 2)
    chooses the rest; the assistant's confidence (signal 3) filters what it learns from.
    """
    if run.recipe.loop.filter and run.recipe.budget.accepted is not None:
        raise BadInput(
            "budget.accepted is counted while answers come in, before ta_in_the_loop's filter has "
            "seen them; set loop.filter: false or limit queries"
        )
    pool, make, of = run.pool(), run.make, run.of
    assistant, instructed = run.warmed(pool), run.instructed()
    first, rest = (0.0, run.recipe.loop.warm_share), (run.recipe.loop.warm_share, 1.0)
    keep = "confident" if run.recipe.loop.filter else run.recipe.check.keep
    judge = assistant if keep == "confident" else None

    drawn = make(stages.select, of.select_by("random", first), pool)
    answers = make(stages.query_teacher, of.query_part(first), pool, drawn, *run.shots)
    lessons = make(stages.check, of.check_by(keep), pool, answers, judge)
    student = make(stages.train_student, of.train_student, pool, instructed, lessons)

    unsure = make(stages.weigh_student, of.signals, pool, student, assistant)
    chosen = make(stages.select, of.select_by("hardest", rest), pool, unsure, None, answers)
    more = make(stages.query_teacher, of.query_part(rest), pool, chosen, *run.shots)
    others = make(stages.check, of.check_by(keep), pool, more, judge)
    student = make(stages.train_student, of.train_student, pool, instructed, lessons, others)
    return {
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        "ta_in_the_loop": Arm(student, "student", ask=run.student_ask),
    }
