"""BRIDGE with a student that is not instruction-tuned first."""

from bridgekd.errors import InputError
from bridgekd.methods import Method
from bridgekd.methods.bridge import (
    build_assistant_arm,
    describe_variant,
    teach_assistant,
    write_rationales,
)
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return the assistant of BRIDGE and the student. Raises InputError without an instruction
    set: this method would equal BRIDGE.
    """
    if run.instructions is None:
        raise InputError(
            f"{METHOD.name} needs student.instruction_data. Without it, it equals bridge. Remove "
            "it from the methods."
        )
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool))
    rationales = write_rationales(run, pool, assistant, purchased)
    student = run.train_student(pool, run.student, rationales)
    title = "Student, not instruction-tuned"
    return [
        run.build_student_base_arm(),
        build_assistant_arm(assistant),
        METHOD.build_result_arm(title, student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="bridge_no_instruct",
    title="BRIDGE without instruction tuning",
    summary="BRIDGE that trains the student's base model without instruction tuning.",
    paper="arXiv 2512.20403",
    card_sentence=describe_variant("without instruction tuning"),
    rank=60,
    build=build,
)
