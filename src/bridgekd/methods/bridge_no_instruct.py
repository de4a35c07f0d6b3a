"""BRIDGE with a student that was never instruction-tuned; the rest is BRIDGE's own."""

from bridgekd.errors import InputError
from bridgekd.methods import Method
from bridgekd.methods.bridge import ASSISTANT_CARD, teach_assistant
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return the arms. Raises InputError without an instruction set: it would be BRIDGE itself."""
    if run.instructions is None:
        raise InputError(
            f"{METHOD.name} needs student.instruction_data. Without it, it equals bridge. Leave "
            "it out."
        )
    pool = run.load_pool()
    assistant = teach_assistant(run, pool, run.warm_up(pool))
    rationales = run.annotate(pool, assistant)
    student = run.train_student(pool, run.student, [rationales])
    return [
        run.build_student_base_arm(),
        Arm(
            "assistant", "Assistant, trained", assistant, "assistant",
            card_sentence=ASSISTANT_CARD,
        ),
        Arm(
            METHOD.name, "Student, not instruction-tuned", student, "student",
            run.student_prompt_mode, is_result=True, card_sentence=METHOD.card_sentence,
        ),
    ]  # fmt: skip


METHOD = Method(
    name="bridge_no_instruct",
    title="BRIDGE without instruction tuning",
    summary="BRIDGE that trains the student's base model without instruction tuning.",
    paper="arXiv 2512.20403",
    card_sentence="Method: BRIDGE (arXiv 2512.20403) without instruction tuning. A local assistant "
    "learned from the teacher's answers; the student learned from the rationales that the "
    "assistant then wrote for the whole pool.",
    rank=60,
    build=build,
)
