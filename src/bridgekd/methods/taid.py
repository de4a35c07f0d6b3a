"""TAID (arXiv 2501.16937): the student follows a target that moves from itself to the assistant."""

from bridgekd.lm.objectives.interpolated_kl import InterpolatedKLOptions
from bridgekd.methods import Method
from bridgekd.methods.distill import build_distilled
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


def build(run: Run, options: InterpolatedKLOptions) -> list[Arm]:
    """Return the student and its assistant, as in `bridge_random`, with the objective
    `interpolated_kl`."""
    objective = VariantRef.model_validate({"name": "interpolated_kl", **options.model_dump()})
    return build_distilled(run, METHOD, objective)


METHOD = Method(
    name="taid",
    title="TAID",
    summary="The student follows a target that moves from itself to the assistant.",
    paper="arXiv 2501.16937",
    card_sentence="Method: TAID (arXiv 2501.16937). A local assistant learned from the teacher's "
    "answers to questions drawn at random; the student learned, on the rationales that the "
    "assistant then wrote for the whole pool, a distribution that moved from its own to "
    "the assistant's.",
    options=InterpolatedKLOptions,
    rank=75,
    build=build,
)
