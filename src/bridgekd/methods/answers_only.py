"""Fine-tuning on labels alone: no teacher, no rationale, nothing to pay."""

from bridgekd import stages
from bridgekd.runs import Arm, Arms, Run


def answers_only(run: Run) -> Arms:
    """The instructed student after the gold answers of the whole pool; it is asked as it learnt,
    for the answer alone.
    """
    pool, instructed = run.pool(), run.instructed()
    student = run.make(stages.train_on_answers, run.of.train_on_answers, pool, instructed)
    return {
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        "answers_only": Arm(student, "student", ask="answer"),
    }
