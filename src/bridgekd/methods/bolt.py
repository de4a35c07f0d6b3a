"""BOLT (arXiv 2502.03860): a few in-context examples let an untrained assistant write the student's
rationales.
"""

from typing import Literal

from pydantic import Field

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.methods import Method
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.annotate import build_sample_settings, sample_rationales


class BOLTOptions(FrozenModel):
    """examples: `teacher`, the first `n_examples` kept rationales for questions drawn at random,
    within the recipe's budget; or `file`, those of teacher.prompt.few_shot, which cost nothing.
    n_samples: samples of the assistant per question, at temperature 0.7.
    """

    examples: Literal["teacher", "file"] = "teacher"
    n_examples: int = Field(10, ge=1, le=100)
    n_samples: int = Field(3, ge=1, le=64)


def build(run: Run, options: BOLTOptions) -> list[Arm]:
    """Return the student of the correct rationales that the base assistant wrote after the
    examples. It learns the purchased examples, too. The paper's online training is left out.
    """
    if options.examples == "file" and not run.few_shot:
        raise InputError("bolt: examples: file needs a file in teacher.prompt.few_shot. Name one.")
    pool = run.load_pool()
    purchased = buy_examples(run, pool, options.n_examples) if options.examples == "teacher" else []
    settings = build_sample_settings(run.recipe, options.n_samples)
    few_shot = () if purchased else run.few_shot
    sampled = run.make(
        sample_rationales, settings, pool, run.assistant, shots=purchased, few_shot=few_shot
    )
    rationales = run.select_rationales(pool, [*purchased, sampled], run.assistant)
    instructed = run.instruct_student()
    student = run.train_student(pool, instructed, rationales)
    return [
        run.build_assistant_base_arm(),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, BOLT", student, run.student_prompt_mode),
    ]


def buy_examples(run: Run, pool: Artifact, n_examples: int) -> list[Artifact]:
    """Return kept rationales of the teacher for random questions: `n_examples`, or fewer if the
    recipe's budget ends before. Without a trained assistant the filter `confident` is `correct`.
    """
    recipe = run.recipe.with_samples(1)
    n = min(n_examples, recipe.budget.accepted_rationales or n_examples)
    rule = "correct" if recipe.check.filter == "confident" else recipe.check.filter
    update = {
        "budget": recipe.budget.model_copy(update={"accepted_rationales": n}),
        "check": recipe.check.model_copy(update={"filter": rule}),
    }
    run = run.with_recipe(recipe.model_copy(update=update))
    ranking = run.select_questions(pool, strategy="random")
    return [run.check_rationales(pool, run.query_teacher(pool, ranking))]


METHOD = Method(
    name="bolt",
    title="BOLT",
    summary="A few in-context examples let an untrained assistant write the student's rationales.",
    paper="arXiv 2502.03860",
    card_sentence="Method: BOLT (arXiv 2502.03860). An untrained assistant wrote rationales for "
    "the whole pool after a few in-context examples; the student learned from those that end in "
    "the correct answer.",
    options=BOLTOptions,
    rank=25,
    build=build,
)
