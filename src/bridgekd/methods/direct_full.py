"""Direct distillation with the whole pool: the budget's dollars and tokens still end it."""

from bridgekd.methods import Method
from bridgekd.methods.direct import build_direct
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return direct distillation that asks every question of the pool."""
    title = "Student, direct, full pool"
    return build_direct(run, METHOD.name, title, METHOD.card_sentence, queries="100%")


METHOD = Method(
    name="direct_full",
    title="Direct distillation, full pool",
    summary="The student learns from the teacher's answers to the whole pool.",
    paper="arXiv 2305.02301",
    card_sentence="Method: direct distillation (arXiv 2305.02301) with the whole pool asked. The "
    "student learned from the teacher's own rationales.",
    rank=20,
    build=build,
)
