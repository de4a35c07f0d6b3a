"""Direct distillation with the full pool. The budget's dollars and tokens still limit it."""

from bridgekd.methods import Method
from bridgekd.methods.direct import build_direct
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return direct distillation with every question of the pool, each queried once."""
    run = run.with_recipe(run.recipe.with_samples(1))
    return build_direct(run, METHOD, "Student, direct, full pool", queries="100%")


METHOD = Method(
    name="direct_full",
    title="Direct distillation, full pool",
    summary="The student learns from the teacher's answers to the full pool.",
    paper="arXiv 2305.02301",
    card_sentence="Method: direct distillation (arXiv 2305.02301) with the full pool. The student "
    "learned from the teacher's own rationales.",
    rank=20,
    build=build,
)
