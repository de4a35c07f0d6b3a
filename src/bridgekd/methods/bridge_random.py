"""BRIDGE with another strategy: random."""

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_bridge
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return BRIDGE with the strategy random."""
    return build_bridge(
        run,
        METHOD.name,
        "Student, random selection",
        METHOD.card_sentence,
        strategy="random",
        assistant_arm=("random_assistant", "Assistant, random selection"),
    )


METHOD = Method(
    name="bridge_random",
    title="BRIDGE with random selection",
    summary="What selection by difficulty and diversity has to beat.",
    paper="arXiv 2512.20403",
    card_sentence="Method: BRIDGE (arXiv 2512.20403) with questions drawn at random. A local "
    "assistant learned from the teacher's answers; the student learned from the rationales that "
    "the assistant then wrote for the whole pool.",
    rank=90,
    build=build,
)
