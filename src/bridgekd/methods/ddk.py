"""DDK (arXiv 2407.16154): while the student learns from the assistant, it gets more rows of the
domains in which it is far behind the assistant.
"""

from pydantic import Field

from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant
from bridgekd.methods.distillation import (
    build_distillation_settings,
    build_forward_kl,
    check_tokens,
)
from bridgekd.recipe import FrozenModel
from bridgekd.rng import SEED_STEP
from bridgekd.runs.run import Arm, Run
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.stages.mix_rationales import MixRationalesSettings, mix_rationales
from bridgekd.stages.score_texts import ScoreRationalesSettings, score_rationales
from bridgekd.stages.train import train_student
from bridgekd.variants import VariantRef


class DDKOptions(FrozenModel):
    """n_waves: parts of the student's training; the shares of the domains are computed before
    each. alpha: the part of the shares that follows the gap. n_per_domain: rationales of a domain
    whose losses are compared. kd_weight, kd_temperature: those of the KL term, as in mentor_kd.
    """

    n_waves: int = Field(3, ge=1, le=100)
    alpha: float = Field(0.5, ge=0, le=1)
    n_per_domain: int = Field(500, ge=1)
    kd_weight: float = Field(0.3, ge=0, lt=1)
    kd_temperature: float = Field(2.0, gt=0, le=1000)


def build(run: Run, options: DDKOptions) -> list[Arm]:
    """Return the student and its assistant, which learned from random questions and wrote the
    rationales of the full pool.
    """
    pool = run.load_pool()
    assistant, _ = teach_assistant(run, pool, run.warm_up(pool), "random")
    rationales = run.annotate(pool, assistant)
    student = instructed = run.instruct_student()
    objective = build_forward_kl(options.kd_weight, options.kd_temperature)
    check_tokens(run, objective)
    settings = build_distillation_settings(run, objective)
    mixture = MIXTURES.resolve(VariantRef.model_validate({"name": "gap", "alpha": options.alpha}))
    scoring = ScoreRationalesSettings(n_per_domain=options.n_per_domain, seed=run.recipe.seed)
    n = options.n_waves
    for wave in range(n):
        settings = settings.model_copy(update={"part": (wave / n, (wave + 1) / n)})
        losses = [
            run.make(score_rationales, scoring, pool, model, [rationales])
            for model in (student, assistant)
        ]
        mixing = MixRationalesSettings(mixture=mixture, seed=run.recipe.seed + SEED_STEP * wave)
        rows = run.make(mix_rationales, mixing, pool, [rationales], losses=losses)
        student = run.make(
            train_student, settings, student, pool, [rows], epoch_pool=pool, reference=assistant
        )
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, DDK", student, run.student_prompt_mode),
    ]


METHOD = Method(
    name="ddk",
    title="DDK",
    summary="The student learns from the assistant, with more rows of the domains in which it is "
    "far behind.",
    paper="arXiv 2407.16154",
    card_sentence="Method: DDK (arXiv 2407.16154). A local assistant learned from the teacher's "
    "answers to questions drawn at random; the student learned from the rationales that the "
    "assistant then wrote for the whole pool, and from its distribution, with more rows of the "
    "domains in which it was far behind the assistant.",
    options=DDKOptions,
    rank=78,
    build=build,
)
