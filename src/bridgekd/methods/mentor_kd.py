"""Mentor-KD (arXiv 2410.09037): the assistant as a mentor that gives several rationales a question
and its own distribution over what comes next.
"""

from bridgekd import stages
from bridgekd.methods.bridge import apprentice
from bridgekd.runs import Arm, Arms, Run


def mentor_kd(run: Run) -> Arms:
    """The assistant of random choice; of its sampled rationales the right ones alone, plus a KL to
    it while the student is trained.
    """
    pool, make, of = run.pool(), run.make, run.of
    mentor = apprentice(run, pool, run.warmed(pool), "random")
    rationales = make(stages.sample_rationales, of.sample_rationales, pool, mentor)
    instructed = run.instructed()
    student = make(
        stages.train_with_mentor, of.train_with_mentor, pool, instructed, mentor, rationales
    )
    return {
        "random_assistant": Arm(mentor, "assistant"),
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        "mentor_kd": Arm(student, "student", ask=run.student_ask),
    }
