"""BRIDGE with random selection, and a student that also follows its assistant's distribution, by
any objective. Only the student's loss differs from `bridge_random`.
"""

from typing import Literal

from pydantic import BaseModel, Field

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant, write_rationales
from bridgekd.methods.distillation import train_beside_reference
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.training_examples import ReferenceSees
from bridgekd.variants import VariantRef


class DistillOptions(FrozenModel):
    """objective: an objective with a reference model, and its options; `weight: 0.5` gives half of
    the loss to the likelihood of the rationales, and `on_policy: 0.5` replaces half of them by
    texts of the student. reference: the model whose distribution the student follows. sees: whether
    it reads a correct rationale beside the question. sft_fraction: the fraction of the updates in
    which the student learns the rationales alone, before.
    """

    objective: VariantRef = VariantRef(name="forward_kl")
    reference: Literal["assistant", "initial_student"] = "assistant"
    sees: ReferenceSees = "question"
    sft_fraction: float = Field(0.0, ge=0, lt=1)


def build_distilled(run: Run, method: Method, options: DistillOptions) -> list[Arm]:
    """Return the student and its assistant, as in `bridge_random`, with this objective."""
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    rationales = write_rationales(run, pool, assistant, purchased)
    instructed = run.instruct_student()
    reference = assistant if options.reference == "assistant" else instructed
    student = train_beside_reference(
        run, pool, instructed, rationales, reference, options.objective, options.sees,
        sft_fraction=options.sft_fraction,
    )  # fmt: skip
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        method.build_result_arm(f"Student, {method.title}", student, run.student_prompt_mode),
    ]


def define_distilled_method(
    objective: str,
    options: type[BaseModel],
    *,
    name: str,
    title: str,
    summary: str,
    paper: str,
    difference: str,
    rank: int,
) -> Method:
    """Return the method whose student learns with an objective, as `distill` does.

    options: those of the objective, with the constants of the method as defaults, and perhaps
    `sft_fraction`. `difference` says
    in the card what the student does on the assistant's rationales.
    """

    def build(run: Run, options: BaseModel) -> list[Arm]:
        values = options.model_dump()
        sft_fraction = values.pop("sft_fraction", 0.0)
        ref = VariantRef.model_validate({"name": objective, **values})
        options = DistillOptions(objective=ref, sft_fraction=sft_fraction)
        return build_distilled(run, method, options)

    method = Method(
        name=name,
        title=title,
        summary=summary,
        paper=paper,
        card_sentence=f"Method: {title} ({paper}). A local assistant learned from the teacher's "
        "answers to questions drawn at random, then it wrote rationales for the whole pool. "
        f"{difference}",
        options=options,
        rank=rank,
        build=build,
    )
    return method


def build(run: Run, options: DistillOptions) -> list[Arm]:
    """Return the student with the objective of the options."""
    return build_distilled(run, METHOD, options)


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
