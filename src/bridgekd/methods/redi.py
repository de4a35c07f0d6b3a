"""REDI (arXiv 2505.24850): after the correct rationales the student learns pairs of correct and
wrong ones, with a negative weight for the wrong ones. The rest is `bridge_random`.
"""

from pydantic import Field

from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.methods import Method
from bridgekd.methods.bridge import build_assistant_arm, teach_assistant, write_rationales
from bridgekd.recipe import FrozenModel
from bridgekd.runs.evidence import make_mixed_rationales
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.annotate import build_sample_settings, sample_rationales
from bridgekd.stages.row_settings import RationaleRows
from bridgekd.stages.train import TrainSettings, build_student_settings, train_student
from bridgekd.variants import VariantRef

# Stage 2 of the paper: 10 % warmup, then a linear schedule.
WARMUP_RATIO = 0.1
SCHEDULE = "linear"


class REDIOptions(FrozenModel):
    """alpha: weight of the wrong rationales. n_samples: samples of the assistant per question, of
    which the wrong ones are used; they cost nothing. fraction: part of the student's updates that
    is stage 2, at least one update; 0.25 is one epoch after three, as in the paper.
    learning_rate_factor: learning rate of stage 2, relative to student.train; 0.02 is 1e-6 after
    5e-5, as in the paper. max_nll and min_weight: bounds of the objective `signed_nll` (ours).
    """

    alpha: float = Field(0.8, ge=0, le=1)
    n_samples: int = Field(3, ge=1, le=64)
    fraction: float = Field(0.25, gt=0, lt=1)
    learning_rate_factor: float = Field(0.02, gt=0, le=1)
    max_nll: float = Field(10.0, gt=0)
    min_weight: float = Field(-0.1, lt=0)


def build(run: Run, options: REDIOptions) -> list[Arm]:
    """Return the student after both stages and its assistant, as in `bridge_random`.

    Stage 1 learns the rationales of `bridge_random`. Stage 2 learns those of questions that also
    have a wrong one: of the teacher, or of the assistant. Its early stopping measures the accuracy
    on the validation split.
    """
    pool = run.load_pool()
    assistant, purchased = teach_assistant(run, pool, run.warm_up(pool), "random")
    samples = build_sample_settings(run.recipe, options.n_samples)
    sampled = run.make(sample_rationales, samples, pool, assistant)
    wrong = [*purchased, run.annotate(pool, assistant), sampled]
    instructed = run.instruct_student()
    rationales = write_rationales(run, pool, assistant, purchased)
    rows = make_mixed_rationales(run, pool, instructed, rationales)
    first, second = build_redi_settings(build_student_settings(run.recipe, run.folder), options)
    student = run.make(train_student, first, instructed, pool, rows, epoch_pool=pool)
    student = run.make(train_student, second, student, pool, rows, epoch_pool=pool, wrong=wrong)
    return [
        build_assistant_arm(assistant, "random", "random selection"),
        *run.build_start_arms(instructed),
        METHOD.build_result_arm("Student, REDI", student, run.student_prompt_mode),
    ]


def build_redi_settings(
    settings: TrainSettings, options: REDIOptions
) -> tuple[TrainSettings, TrainSettings]:
    """Return the two stages of a training on rationales. Together they have its updates."""
    assert isinstance(settings.rows, RationaleRows), "REDI trains on rationales"
    bounds = {"max_nll": options.max_nll, "min_weight": options.min_weight}
    objective = VariantRef.model_validate({"name": "signed_nll", **bounds})
    train = settings.train.model_copy(
        update={
            "learning_rate": settings.train.learning_rate * options.learning_rate_factor,
            "warmup_ratio": WARMUP_RATIO,
            "lr_scheduler_type": SCHEDULE,
            "holdout_size": None,
        }
    )
    end = 1 - options.fraction
    second = {
        "rows": settings.rows.model_copy(update={"alpha": options.alpha}),
        "objective": OBJECTIVES.resolve(objective),
        "train": train,
        "part": (end, 1.0),
    }
    return settings.model_copy(update={"part": (0.0, end)}), settings.model_copy(update=second)


METHOD = Method(
    name="redi",
    title="REDI",
    summary="The student learns correct rationales, then also unlearns wrong ones.",
    paper="arXiv 2505.24850",
    card_sentence="Method: REDI (arXiv 2505.24850). A local assistant learned from the teacher's "
    "answers to questions drawn at random; the student learned from the rationales that the "
    "assistant then wrote for the whole pool, and then from correct rationales and, with a "
    "negative weight, wrong ones of the same questions.",
    options=REDIOptions,
    rank=79,
    build=build,
)
