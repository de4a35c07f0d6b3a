"""Direct distillation (Distilling Step-by-Step, arXiv 2305.02301): the student learns from the
teacher itself.
"""

from bridgekd import settings, stages
from bridgekd.runs import Arm, Arms, Run


def direct(run: Run) -> Arms:
    """The same budget on questions drawn at random; the same instructed student, the same number of
    updates.
    """
    return _direct(run, "direct", run.of.select_by("random"), run.of.query_teacher)


def direct_full(run: Run) -> Arms:
    """Every question of the pool is asked: 100 % of the budget, whatever the others may spend. The
    budget's dollars and tokens still end it.
    """
    return _direct(run, "direct_full", *run.of.whole_pool())


def _direct(run: Run, name: str, choice: settings.Select, purchase: settings.QueryTeacher) -> Arms:
    pool, make, of = run.pool(), run.make, run.of
    ranking = make(stages.select, choice, pool)
    answers = make(stages.query_teacher, purchase, pool, ranking, *run.shots)
    lessons = make(stages.check, of.check, pool, answers, run.judge(pool))
    instructed = run.instructed()
    student = make(stages.train_student, of.train_student, pool, instructed, lessons)
    return {
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        name: Arm(student, "student", ask=run.student_ask),
    }
