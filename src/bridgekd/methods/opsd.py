"""OPSD (arXiv 2601.18734): the student that reads a paid rationale guides the one that does not.

It needs no assistant and no common vocabulary, and costs nothing beyond `direct`.
"""

from pydantic import Field

from bridgekd.lm.objectives.jsd import JSDOptions
from bridgekd.methods import Method
from bridgekd.methods.distillation import train_beside_reference
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


class OPSDOptions(JSDOptions):
    """The options of jsd, with the paper's constants: all rows on-policy, temperature 1.1 for the
    texts and for the loss. sft_fraction: as in `distill`; the paper starts from a model that solves
    such problems, and the half is ours.
    """

    on_policy: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(1.1, gt=0, le=1000)
    sampling_temperature: float = Field(1.1, gt=0, le=1000)
    sft_fraction: float = Field(0.5, ge=0, lt=1)


def build(run: Run, options: OPSDOptions) -> list[Arm]:
    """Return the student, which learned on the questions of `direct`. Its reference model is the
    instruction-tuned student with the teacher's rationale in its prompt. Sampling from the whole
    vocabulary, without top-p and top-k, is our reading.
    """
    pool = run.load_pool()
    ranking = run.select_questions(pool, strategy="random")
    rationales = run.check_rationales(pool, run.query_teacher(pool, ranking))
    instructed = run.instruct_student()
    values = options.model_dump(exclude={"sft_fraction"})
    objective = VariantRef.model_validate({"name": "jsd", **values})
    student = train_beside_reference(
        run, pool, instructed, [rationales], instructed, objective, "rationale",
        sft_fraction=options.sft_fraction,
    )  # fmt: skip
    return [
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, OPSD", student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="opsd",
    title="OPSD",
    summary="The student that reads a paid rationale guides the student that does not read it.",
    paper="arXiv 2601.18734",
    card_sentence="Method: OPSD (arXiv 2601.18734). After a start on the teacher's rationales the "
    "student wrote rationales itself and "
    "learned on them what it would have written with the teacher's rationale in its prompt.",
    options=OPSDOptions,
    rank=35,
    build=build,
)
