"""BRIDGE with another strategy: diverse."""

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_bridge
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return BRIDGE with the strategy diverse."""
    return build_bridge(
        run,
        METHOD.name,
        "Student, diverse questions",
        METHOD.card_sentence,
        strategy="diverse",
        assistant_arm=("diverse_assistant", "Assistant, diverse questions"),
    )


METHOD = Method(
    name="bridge_diverse",
    title="BRIDGE with diverse questions",
    summary="BRIDGE that selects by diversity alone.",
    paper="arXiv 2512.20403",
    card_sentence="Method: BRIDGE (arXiv 2512.20403) with selection by diversity alone. A local "
    "assistant learned from the teacher's answers; the student learned from the rationales that "
    "the assistant then wrote for the whole pool.",
    rank=50,
    build=build,
)
