"""On-policy distillation, then rewards: the student first learns to be sometimes right."""

from bridgekd.lm.objectives.group_reward import GroupRewardOptions
from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant, write_rationales
from bridgekd.methods.distillation import train_beside_reference, train_by_rewards
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


def build(run: Run, options: GroupRewardOptions) -> list[Arm]:
    """Return the student and its assistant. Two thirds of the student's updates are those of
    `on_policy`, one third those of `rule_rl`; equal thirds are our reading.
    """
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    rationales = write_rationales(run, pool, assistant, purchased)
    instructed = run.instruct_student()
    distillation = VariantRef.model_validate({"name": "reverse_kl", "on_policy": 1.0})
    student = train_beside_reference(
        run,
        pool,
        instructed,
        rationales,
        assistant,
        distillation,
        part=(0.0, 2 / 3),
        sft_fraction=0.5,
    )
    rewards = VariantRef.model_validate({"name": "group_reward", **options.model_dump()})
    student = train_by_rewards(run, pool, student, rewards, part=(2 / 3, 1.0))
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, distilled on-policy, then rewards", student, "cot"),
    ]


METHOD = Method(
    name="opd_then_rl",
    title="On-policy distillation, then rewards",
    summary="The student learns from the assistant on its own texts, then from rewards.",
    paper="github.com/StringNLPLAB/opd-rlvr",
    card_sentence="Method: on-policy distillation, then rewards. The student wrote rationales "
    "itself and learned from the distribution of an assistant that the teacher had taught, then "
    "those of its rationales that ended in the gold answer became likelier.",
    options=GroupRewardOptions,
    rank=68,
    build=build,
)
