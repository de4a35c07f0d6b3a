"""Rewards alone (AlphaMed, arXiv 2505.17952): the student writes, the gold answers judge, and no
teacher is asked.
"""

from bridgekd.lm.objectives.group_reward import GroupRewardOptions
from bridgekd.methods import Method
from bridgekd.methods.distillation import train_by_rewards
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


def build(run: Run, options: GroupRewardOptions) -> list[Arm]:
    """Return the instruction-tuned student after a training by rewards. A start from the
    instruction-tuned model, which must sometimes be right, is our reading.
    """
    pool, instructed = run.load_pool(), run.instruct_student()
    objective = VariantRef.model_validate({"name": "group_reward", **options.model_dump()})
    student = train_by_rewards(run, pool, instructed, objective)
    return [
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, rewards", student, "cot"),
    ]


METHOD = Method(
    name="rule_rl",
    title="Rewards alone",
    summary="The student writes rationales itself, and those with the gold answer become likelier.",
    paper="arXiv 2505.17952",
    card_sentence="Method: rewards alone (arXiv 2505.17952). The student wrote rationales itself, "
    "and those that ended in the gold answer became likelier. No teacher was asked.",
    options=GroupRewardOptions,
    rank=15,
    build=build,
)
