"""BalDistill (arXiv 2406.13114): domain quotas that move from the shares of the pool to equal ones,
and the student's own difficulty inside each domain.
"""

from pydantic import Field

from bridgekd.io.artifact_store import Artifact
from bridgekd.methods import Method
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.score_texts import IFDSettings, score_ifd


class BalDistillOptions(FrozenModel):
    """n_stages: purchases, each followed by a training of the student."""

    n_stages: int = Field(5, ge=2, le=100)


def build(run: Run, options: BalDistillOptions) -> list[Arm]:
    """Return the student. Its first questions are drawn at random; those of each later stage have
    the highest instruction-following difficulty of their domain. It is trained again on all
    rationales so far. Without domains there are no quotas.

    Not in here: questions that the teacher writes for domains that are too small.
    """
    pool, instructed, n = run.load_pool(), run.instruct_student(), options.n_stages
    mixture = "toward_even" if run.recipe.data.columns.domain else None
    answers: list[Artifact] = []
    rationales: list[Artifact] = []
    student = instructed
    for k in range(n):
        part = (k / n, (k + 1) / n)
        if k == 0:
            ranking = run.select_questions(pool, strategy="random", budget_slice=part)
        else:
            settings = IFDSettings(max_new_tokens=run.recipe.student.max_new_tokens)
            scores = run.make(score_ifd, settings, pool, student)
            ranking = run.select_questions(
                pool, scores, earlier=answers,
                strategy="hardest", mixture=mixture, budget_slice=part,
            )  # fmt: skip
        answers.append(run.query_teacher(pool, ranking, budget_slice=part))
        rationales.append(run.check_rationales(pool, answers[-1]))
        student = run.train_student(pool, instructed, rationales)
    return [
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, BalDistill", student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="baldistill",
    title="BalDistill",
    summary="Domain quotas move from the pool's shares to equal ones; the student's own difficulty "
    "selects inside each domain.",
    paper="arXiv 2406.13114",
    card_sentence="Method: BalDistill (arXiv 2406.13114). The student learned from the teacher's "
    "own rationales: first for questions drawn at random, then for those of each domain that it "
    "found hardest, with shares of the domains that became more equal from purchase to purchase.",
    options=BalDistillOptions,
    rank=75,
    build=build,
)
