"""BRIDGE (arXiv 2512.20403): choose locally, pay for little, teach through an assistant."""

from bridgekd import stages
from bridgekd.runs import Arm, Arms, Run


def bridge(run: Run, *, strategy: str | None = None, prefix: str = "") -> Arms:
    """Phase 1, apprenticeship, up to `assistant`; phase 2, tutoring, from `rationales` on."""
    pool, make, of = run.pool(), run.make, run.of
    warm = run.warmed(pool)
    ranking = make(stages.select, of.select_by(strategy), pool, *run.scored(pool, warm))
    answers = make(stages.query_teacher, of.query_teacher, pool, ranking, *run.shots)
    lessons = make(stages.check, of.check, pool, answers, *run.judges(pool))
    assistant = make(stages.train_assistant, of.train_assistant, pool, lessons, warm)
    rationales = make(stages.annotate, of.annotate, pool, assistant)
    instructed = run.instructed()
    student = make(stages.train_student, of.train_student, pool, rationales, instructed)
    return {
        "assistant_base": Arm(run.assistant, "assistant"),
        **run.warm_arm(warm),
        f"{prefix}assistant": Arm(assistant, "assistant"),
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        prefix.rstrip("_") or "bridge": Arm(student, "student", ask=run.student_ask),
    }


def random(run: Run) -> Arms:
    """BRIDGE with random choice: what choosing by difficulty and diversity has to beat."""
    return bridge(run, strategy="random", prefix="random_")
