"""BRIDGE with random selection, and a student that also follows its assistant's distribution, by
any objective. Only the student's loss differs from `bridge_random`.
"""

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant, write_rationales
from bridgekd.methods.distillation import train_beside_assistant
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


class DistillOptions(FrozenModel):
    """objective: an objective with a reference model, and its options; `weight: 0.5` gives half of
    the loss to the likelihood of the rationales.
    """

    objective: VariantRef = VariantRef(name="forward_kl")


def build_distilled(run: Run, method: Method, objective: VariantRef) -> list[Arm]:
    """Return the student and its assistant, as in `bridge_random`, with this objective."""
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    rationales = write_rationales(run, pool, assistant, purchased)
    instructed = run.instruct_student()
    student = train_beside_assistant(run, pool, instructed, rationales, assistant, objective)
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        method.build_result_arm(f"Student, {method.title}", student, run.student_prompt_mode),
    ]


def build(run: Run, options: DistillOptions) -> list[Arm]:
    """Return the student with the objective of the options."""
    return build_distilled(run, METHOD, options.objective)


METHOD = Method(
    name="distill",
    title="distribution of the assistant",
    summary="The student learns the assistant's rationales and its distribution, by any objective.",
    paper="arXiv 1503.02531",
    card_sentence="Method: a local assistant learned from the teacher's answers to questions drawn "
    "at random; the student learned from the rationales that the assistant then wrote for the "
    "whole pool, and from its distribution over the next token.",
    options=DistillOptions,
    rank=76,
    build=build,
)
