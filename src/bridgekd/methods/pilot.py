"""The pilot behind `plan --advise`: a small share of the budget, spent on the first questions that
`direct` and `random` would ask, and everything that it can tell of each arm.
"""

from dataclasses import dataclass, field
from typing import Literal

from bridgekd import stages
from bridgekd.core.advice import Role
from bridgekd.core.draws import SEED_STEP
from bridgekd.edges.store import Artifact
from bridgekd.runs import Arm, Run
from bridgekd.stages.piloting import Advise, Measured, SetAside, Thin

NAME = "pilot"  # what its journal calls the method


@dataclass(slots=True)
class _Models:
    """What the pilot made, to be measured on what it set aside."""

    run: Run
    aside: Artifact
    models: list[Measured] = field(default_factory=list)
    answers: list[Artifact] = field(default_factory=list)

    def add(self, arm: Arm, role: Role, share: float = 0.0, tutor: int = -1) -> int:
        """Its place among the models."""
        self.answers.append(self.run.answered(arm, self.aside, self.aside))
        self.models.append(Measured(role=role, share=share, tutor=tutor))
        return len(self.models) - 1

    def student(self, model: Artifact, role: Role, share: float = 0.0, tutor: int = -1) -> None:
        self.add(Arm(model, "student", ask=self.run.student_ask), role, share, tutor)


def pilot(run: Run) -> Artifact:
    """The advice: learning curves of the student and of the assistant over parts of one small
    purchase, students of the assistants at its ends, and what costs nothing.
    """
    make, of, how = run.make, run.of, run.recipe.advise
    pool, warm, instructed = run.pool(), run.warmed(run.pool()), run.instructed()
    ranking = make(stages.select, of.select_by("random", (0.0, how.share)), pool)
    untaught = None if warm == run.assistant else of.warm_up
    limits = SetAside(n=how.measure, warm_up=untaught, smallest=how.grid[0])
    aside = make(stages.set_aside, limits, pool, ranking)
    bought = make(stages.query_teacher, of.query_part((0.0, how.share)), pool, ranking, *run.shots)
    lessons = make(stages.check, of.check, pool, bought, run.judge(pool))

    made = _Models(run, aside)
    if instructed != run.student:
        made.add(Arm(run.student, "student"), "base")
    made.student(instructed, "instructed")
    made.add(Arm(warm, "assistant"), "warm")
    if not run.recipe.data.unlabelled:
        answered = make(stages.train_on_answers, of.train_on_answers, aside, instructed, pool)
        made.add(Arm(answered, "student", ask="answer"), "answers_only", 1.0)
    for share in how.grid:
        part = _thinned(run, lessons, share, None)
        for seed in range(how.seeds):
            made.student(_taught(run, "student", seed, pool, instructed, part), "direct", share)
            assistant = _taught(run, "assistant", seed, pool, warm, part)
            place = made.add(Arm(assistant, "assistant"), "apprentice", share)
            if seed == 0 and share in (how.grid[0], how.grid[-1]):
                pools = how.pools if share == how.grid[-1] else how.pools[-1:]
                _tutored(made, pool, instructed, assistant, place, pools)
    advice = Advise(
        models=tuple(made.models), budget=run.recipe.budget, share=how.share, sure=how.sure
    )
    return make(stages.advise, advice, aside, lessons, *made.answers)


def _tutored(
    made: _Models,
    pool: Artifact,
    instructed: Artifact,
    assistant: Artifact,
    place: int,
    pools: tuple[float, ...],
) -> None:
    """Students of one assistant, which writes for all that is not set aside."""
    run = made.run
    rationales = run.make(stages.annotate, run.of.annotate, made.aside, assistant)
    for share in pools:
        part = _thinned(run, rationales, share, run.recipe.seed)
        for seed in range(run.recipe.advise.seeds):
            student = _taught(run, "student", seed, pool, instructed, part)
            made.student(student, "tutored", share, place)


def _thinned(run: Run, rationales: Artifact, share: float, seed: int | None) -> Artifact:
    if share == 1:
        return rationales
    return run.make(stages.thin, Thin(share=share, seed=seed), rationales)


def _taught(
    run: Run,
    size: Literal["student", "assistant"],
    seed: int,
    pool: Artifact,
    model: Artifact,
    rationales: Artifact,
) -> Artifact:
    """A training as a run of the recipe does it; other seeds shuffle the same rows otherwise."""
    work, how = stages.train_student, run.of.train_student
    if size == "assistant":
        work, how = stages.train_assistant, run.of.train_assistant
    how = how.model_copy(update={"seed": how.seed + SEED_STEP * seed})
    return run.make(work, how, pool, model, rationales)
