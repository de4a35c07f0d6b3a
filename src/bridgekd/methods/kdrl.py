"""KDRL (arXiv 2506.02208): rewards for the student's own texts, and a KL to the assistant."""

from bridgekd.lm.objectives.reward_and_kl import RewardAndKLOptions
from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant, write_rationales
from bridgekd.methods.distillation import check_tokens, start_student, train_by_rewards
from bridgekd.runs.evidence import make_mixed_rationales
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import VariantRef


def build(run: Run, options: RewardAndKLOptions) -> list[Arm]:
    """Return the student and its assistant, which learned from random questions.

    Half of the student's updates are those of `bridge_random`: a student that is never right has
    no reward to learn from. The paper starts from a model that reasons; the half is our reading.
    """
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    rationales = write_rationales(run, pool, assistant, purchased)
    instructed = run.instruct_student()
    objective = VariantRef.model_validate({"name": "reward_and_kl", **options.model_dump()})
    check_tokens(run, objective)
    rows = make_mixed_rationales(run, pool, instructed, rationales)
    student = start_student(run, pool, instructed, rows, (0.0, 0.5))
    student = train_by_rewards(run, pool, student, objective, assistant, (0.5, 1.0))
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, KDRL", student, "cot"),
    ]


METHOD = Method(
    name="kdrl",
    title="KDRL",
    summary="The student's own texts are rewarded and kept near the assistant's distribution.",
    paper="arXiv 2506.02208",
    card_sentence="Method: KDRL (arXiv 2506.02208). A local assistant learned from the teacher's "
    "answers to questions drawn at random. After a start on this assistant's rationales the "
    "student wrote rationales itself; those that ended in the gold answer became likelier, near "
    "the assistant's distribution.",
    options=RewardAndKLOptions,
    rank=67,
    build=build,
)
