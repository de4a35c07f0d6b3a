"""Mentor-KD (arXiv 2410.09037): the student learns from several rationales of the assistant per
question, from the teacher's own, and from the assistant's distribution over the next token.
"""

from pydantic import Field

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant
from bridgekd.methods.distillation import build_forward_kl, train_beside_reference
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.annotate import build_sample_settings, sample_rationales


class MentorKDOptions(FrozenModel):
    """n_samples: the assistant's rationales per question, at temperature 0.7. kd_weight: weight of
    the KL term in the student's loss. kd_temperature: temperature of both distributions in that
    term. n_teacher_samples: queries per selected question, if not teacher.n_samples; 3 in the
    paper.
    """

    n_samples: int = Field(3, ge=1, le=64)
    kd_weight: float = Field(0.3, ge=0, lt=1)
    kd_temperature: float = Field(2.0, gt=0, le=1000)
    n_teacher_samples: int | None = Field(None, ge=1, le=64)


def build(run: Run, options: MentorKDOptions) -> list[Arm]:
    """Return the student and its assistant, which learned from random questions. The student learns
    from the teacher's kept rationales and from samples with the correct answer, as in the code of
    the paper (github.com/2hojae/mentor-kd).
    """
    if options.n_teacher_samples is not None:
        run = run.with_recipe(run.recipe.with_samples(options.n_teacher_samples))
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    samples = build_sample_settings(run.recipe, options.n_samples)
    sampled = run.make(sample_rationales, samples, pool, assistant)
    rationales = run.select_rationales(pool, [*purchased, sampled], assistant)
    instructed = run.instruct_student()
    objective = build_forward_kl(options.kd_weight, options.kd_temperature)
    student = train_beside_reference(run, pool, instructed, rationales, assistant, objective)
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, Mentor-KD", student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="mentor_kd",
    title="Mentor-KD",
    summary="The student learns from correct samples of the assistant and from its distribution.",
    paper="arXiv 2410.09037",
    card_sentence="Method: Mentor-KD (arXiv 2410.09037). A local assistant learned from the "
    "teacher's answers to questions drawn at random; the student learned from these, from those of "
    "its sampled rationales that end in the correct answer, and from its distribution.",
    options=MentorKDOptions,
    rank=70,
    build=build,
)
