"""Direct distillation (Distilling Step-by-Step, arXiv 2305.02301): the student learns from the
teacher itself.
"""

from bridgekd import stages
from bridgekd.runs import Arm, Arms, Run


def direct(run: Run) -> Arms:
    """The same budget on questions drawn at random; the same instructed student, the same number of
    updates.
    """
    pool, make, of = run.pool(), run.make, run.of
    ranking = make(stages.select, of.select_by("random"), pool)
    answers = make(stages.query_teacher, of.query_teacher, pool, ranking, *run.shots)
    lessons = make(stages.check, of.check, pool, answers, *run.judges(pool))
    instructed = run.instructed()
    student = make(stages.train_student, of.train_student, pool, lessons, instructed)
    return {
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        "direct": Arm(student, "student", ask=run.student_ask),
    }
