"""BRIDGE with another strategy: hardest."""

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_bridge
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return BRIDGE with the strategy hardest."""
    return build_bridge(
        run,
        METHOD.name,
        "Student, hardest questions",
        METHOD.card_sentence,
        strategy="hardest",
        assistant_arm=("hardest_assistant", "Assistant, hardest questions"),
    )


METHOD = Method(
    name="bridge_hardest",
    title="BRIDGE with the hardest questions",
    summary="BRIDGE that selects by difficulty alone.",
    paper="arXiv 2512.20403",
    card_sentence="Method: BRIDGE (arXiv 2512.20403) with selection by difficulty alone. A local "
    "assistant learned from the teacher's answers; the student learned from the rationales that "
    "the assistant then wrote for the whole pool.",
    rank=40,
    build=build,
)
