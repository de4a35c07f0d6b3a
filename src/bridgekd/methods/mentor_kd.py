"""Mentor-KD (arXiv 2410.09037): the assistant gives several rationales per question, and its own
distribution over the next token.
"""

from pydantic import BaseModel, ConfigDict, Field

from bridgekd.methods import Method
from bridgekd.methods.bridge import ASSISTANT_CARD, teach_assistant
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.annotate import build_sample_settings, sample_rationales
from bridgekd.stages.train import build_student_settings, train_student
from bridgekd.variants import VariantRef


class MentorKDOptions(BaseModel):
    """`n_samples` rationales per question at temperature 0.7; the weight of the KL term in the
    student's loss, and the temperature of both distributions in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(3, ge=1, le=64)
    kd_weight: float = Field(0.3, ge=0, lt=1)
    kd_temperature: float = Field(2.0, gt=0)


def build(run: Run, options: MentorKDOptions) -> list[Arm]:
    """Return the student of an assistant with random selection. Only correct samples are kept."""
    pool = run.load_pool()
    assistant = teach_assistant(run, pool, run.warm_up(pool), "random")
    settings = build_sample_settings(run.recipe, options.n_samples)
    rationales = run.make(sample_rationales, settings, pool, assistant)
    instructed = run.instruct_student()
    objective = VariantRef.model_validate(
        {
            "name": "forward_kl",
            "kd_weight": options.kd_weight,
            "kd_temperature": options.kd_temperature,
        }
    )
    student = run.make(
        train_student,
        build_student_settings(run.recipe, objective=objective),
        instructed,
        pool,
        [rationales],
        epoch_pool=pool,
        reference=assistant,
    )
    title = "Assistant, random selection"
    return [
        Arm("random_assistant", title, assistant, "assistant", card_sentence=ASSISTANT_CARD),
        *run.build_start_arms(instructed),
        Arm(
            METHOD.name, "Student, Mentor-KD", student, "student", run.student_prompt_mode,
            is_result=True, card_sentence=METHOD.card_sentence,
        ),
    ]  # fmt: skip


METHOD = Method(
    name="mentor_kd",
    title="Mentor-KD",
    summary="The student learns from correct samples of the assistant and from its distribution.",
    paper="arXiv 2410.09037",
    card_sentence="Method: Mentor-KD (arXiv 2410.09037). A local assistant learned from the "
    "teacher's answers to questions drawn at random; the student learned from those of its sampled "
    "rationales that end in the correct answer, and from its distribution.",
    options=MentorKDOptions,
    rank=70,
    build=build,
)
