"""No method: what both models can do without any training."""

from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return both models as the user provided them."""
    return [run.build_assistant_base_arm(), run.build_student_base_arm()]


METHOD = Method(
    name="base_models",
    title="Base models",
    summary="Both models as they are, without any training.",
    paper="",
    card_sentence="Method: none. This is a base model.",
    rank=0,
    build=build,
)
