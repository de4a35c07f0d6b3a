"""BRIDGE (arXiv 2512.20403): choose locally, pay for little, teach through an assistant."""

from bridgekd import stages
from bridgekd.edges.store import Artifact
from bridgekd.errors import BadInput
from bridgekd.runs import Arm, Arms, Run


def bridge(run: Run, *, strategy: str | None = None, prefix: str = "") -> Arms:
    """Phase 1, apprenticeship, gives `assistant`; phase 2, tutoring, the student."""
    pool, make, of = run.pool(), run.make, run.of
    warm = run.warmed(pool)
    assistant = apprentice(run, pool, warm, strategy)
    rationales = make(stages.annotate, of.annotate, pool, assistant)
    instructed = run.instructed()
    student = make(stages.train_student, of.train_student, pool, instructed, rationales)
    return {
        "assistant_base": Arm(run.assistant, "assistant"),
        **run.warm_arm(warm),
        f"{prefix}assistant": Arm(assistant, "assistant"),
        "student_base": Arm(run.student, "student"),
        "student_instructed": Arm(instructed, "student"),
        prefix.rstrip("_") or "bridge": Arm(student, "student", ask=run.student_ask),
    }


def apprentice(run: Run, pool: Artifact, warm: Artifact, strategy: str | None = None) -> Artifact:
    """The assistant after what was chosen, asked and checked; in one round unless `select.rounds`
    says more, each trained from `warm` on all that is known by then.
    """
    make, of, assistant = run.make, run.of, warm
    answers: list[Artifact] = []
    lessons: list[Artifact] = []
    for part in of.rounds:
        known = run.scored(pool, assistant)
        ranking = make(stages.select, of.select_by(strategy, part), pool, *known, *answers)
        answers += [make(stages.query_teacher, of.query_part(part), pool, ranking, *run.shots)]
        lessons += [make(stages.check, of.check, pool, answers[-1], run.judge(pool))]
        assistant = make(stages.train_assistant, of.train_assistant, pool, warm, *lessons)
    return assistant


def random(run: Run) -> Arms:
    """BRIDGE with random choice: what choosing by difficulty and diversity has to beat."""
    return bridge(run, strategy="random", prefix="random_")


def hardest(run: Run) -> Arms:
    """BRIDGE by difficulty alone."""
    return bridge(run, strategy="hardest", prefix="hardest_")


def diverse(run: Run) -> Arms:
    """BRIDGE by diversity alone."""
    return bridge(run, strategy="diverse", prefix="diverse_")


def no_instruct(run: Run) -> Arms:
    """BRIDGE with a student that was never instruction-tuned; the rest is BRIDGE's own."""
    if run.instructions is None:
        raise BadInput(
            "no_instruct is bridge itself where student.instruct is not given; leave it out"
        )
    pool, make, of = run.pool(), run.make, run.of
    assistant = apprentice(run, pool, run.warmed(pool))
    rationales = make(stages.annotate, of.annotate, pool, assistant)
    student = make(stages.train_student, of.train_student, pool, run.student, rationales)
    return {
        "student_base": Arm(run.student, "student"),
        "assistant": Arm(assistant, "assistant"),
        "no_instruct": Arm(student, "student", ask=run.student_ask),
    }
