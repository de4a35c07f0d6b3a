"""Every training: one stage function, with its rows, its epoch and its objective as parameters.

rows: gold answers, rationales or instructions. epoch: one pass over the rows, or, with the input
`epoch_pool`, as many rows as that pool has, so that every student gets the same number of updates.
objective: what is minimized on the target tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import RESUME_DIR, Artifact, stage
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.io.read_pool import read_answer_type, read_pool, read_validation
from bridgekd.io.sources import get_model_and_revision
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.orders import ORDERS
from bridgekd.lm.training_job import SHUFFLED
from bridgekd.prompts import (
    build_answer_target,
    format_answer,
    render_answer_prompt,
    render_cot_prompt,
)
from bridgekd.recipe import (
    CountOrPercent,
    LoraOptions,
    Recipe,
    Role,
    SparseModel,
    TokenLimit,
    TrainOptions,
    resolve_count,
)
from bridgekd.records import Example, TargetSpan, TrainingSequence
from bridgekd.rng import SEED_STEP, make_rng
from bridgekd.stages.early_stopping import (
    AnswerReward,
    GreedyAccuracy,
    HeldOutLoss,
    PromptMode,
    split_held_out,
)
from bridgekd.stages.model_backend import report_generation
from bridgekd.stages.row_settings import (
    AnswerRows,
    Half,
    InstructionRows,
    QuestionRows,
    RationaleRows,
    RowSettings,
)
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.score_targets import read_target_logprobs
from bridgekd.stages.signed_rows import build_signed_rows
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.token_limit import choose_token_limit, resolve_token_limit
from bridgekd.stages.training_examples import ReferenceSees, build_rationale_sequences
from bridgekd.targets import TARGET_FORMATS
from bridgekd.throughput import WorkKind
from bridgekd.variants import VariantRef, VariantSettings

NLL = VariantRef(name="nll")
JOINT = VariantSettings(name="joint")


class TrainSettings(SparseModel):
    """`role` is the model's; `max_new_tokens` limits its answers for early stopping. It is 0 for
    a training on instructions, which answers no question. reference_sees: what the prompt of a
    reference model has beside the question: nothing, or the rationale of the row, too. part: the
    beginning and end of this training as fractions of one that has several parts; None: all of it.
    order: of the rows in an epoch.
    """

    role: Role
    rows: RowSettings
    objective: VariantSettings
    train: TrainOptions
    lora: LoraOptions | None
    max_new_tokens: TokenLimit
    seed: int
    reference_sees: ReferenceSees = "question"
    part: tuple[float, float] | None = None
    order: VariantSettings = SHUFFLED

    OPTIONAL = ("reference_sees", "part", "order")

    def compute_n_updates(self, n_reference: int) -> int:
        """Return the updates of this training, at least one. The parts of a training have together
        as many as the training has.
        """
        n_updates = self.train.compute_n_updates(n_reference)
        _, end = self.part or (0, 1)
        return max(1, round(end * n_updates) - self.count_updates_before(n_reference))

    def count_updates_before(self, n_reference: int) -> int:
        """Return the updates of the parts before this one."""
        start, _ = self.part or (0, 1)
        return round(start * self.train.compute_n_updates(n_reference))

    @property
    def prompt_mode(self) -> PromptMode:
        """The prompts of the model after this training."""
        if isinstance(self.rows, RationaleRows):
            writes_rationale = TARGET_FORMATS.load(self.rows.target_format).writes_rationale
            return "cot" if writes_rationale else "answer_only"
        return "cot" if isinstance(self.rows, QuestionRows) else "answer_only"


def build_warm_up_settings(recipe: Recipe, member: int = 0) -> TrainSettings:
    """Return the warm-up of a member of the committee. Each has its own questions and shuffling;
    member 0 is the assistant that is trained further.
    """
    rows = AnswerRows(size=recipe.assistant.warm_up_size, answer_weight=1.0)
    settings = _build_settings(recipe, "assistant", rows, recipe.assistant.warm_up_train)
    return settings.model_copy(update={"seed": recipe.seed + SEED_STEP * member})


def build_half_settings(recipe: Recipe, half: Half, size: CountOrPercent | None) -> TrainSettings:
    """Return a training as in the warm-up, on `size` questions of one half of the pool."""
    rows = AnswerRows(size=size, answer_weight=1.0, half=half)
    return _build_settings(recipe, "assistant", rows, recipe.assistant.warm_up_train)


def choose_half(n: int, half: Half, seed: int) -> np.ndarray:
    """Return the rows of a random half of a pool of `n` questions, ascending."""
    return np.sort(make_rng(seed, "halves").permutation(n)[half::2])


def build_assistant_settings(recipe: Recipe) -> TrainSettings:
    """Return the training of the assistant on the teacher's rationales."""
    assistant = recipe.assistant
    rows = RationaleRows(target_format=JOINT, answer_weight=assistant.answer_weight)
    return _build_settings(recipe, "assistant", rows, assistant.train)


def build_instruct_settings(recipe: Recipe) -> TrainSettings:
    """Return the instruction tuning of the student."""
    settings = _build_settings(
        recipe, "student", InstructionRows(), recipe.student.instruction_train
    )
    return settings.model_copy(update={"max_new_tokens": 0})


def build_student_settings(
    recipe: Recipe,
    folder: Path,
    rows: RowSettings | None = None,
    objective: VariantRef = NLL,
    reference_sees: ReferenceSees = "question",
) -> TrainSettings:
    """Return a training of the student, by default on rationales in the recipe's target format.
    Files of variants are relative to `folder`.
    """
    student = recipe.student
    rows = rows or RationaleRows(
        target_format=TARGET_FORMATS.resolve(student.target_format, folder),
        answer_weight=student.answer_weight,
    )
    settings = _build_settings(recipe, "student", rows, student.train)
    update = {
        "objective": OBJECTIVES.resolve(objective, folder),
        "order": ORDERS.resolve(student.order, folder),
        "reference_sees": reference_sees,
    }
    return settings.model_copy(update=update)


def _build_settings(
    recipe: Recipe, role: Role, rows: RowSettings, train: TrainOptions
) -> TrainSettings:
    options = recipe.assistant if role == "assistant" else recipe.student
    return TrainSettings(
        role=role,
        rows=rows,
        objective=OBJECTIVES.resolve(NLL),
        train=train,
        lora=options.lora,
        max_new_tokens=options.max_new_tokens,
        seed=recipe.seed,
    )


@stage(version=2, kind=WorkKind.TRAINING, title="Training")
def train(
    output_dir: Path,
    settings: TrainSettings,
    ctx: RunContext,
    model: Artifact,
    pool: Artifact | None = None,
    rationales: Sequence[Artifact] = (),
    *,
    instructions: Artifact | None = None,
    epoch_pool: Artifact | None = None,
    reference: Artifact | None = None,
    wrong: Sequence[Artifact] = (),
    target_logprobs: Artifact | None = None,
) -> TrainStats:
    """Train `model`. A stopped training resumes from its last checkpoint.

    `pool` has the questions and the validation split for early stopping. `reference` is the second
    model of an objective that needs one, `target_logprobs` what it gave these rationales. `wrong`
    has the wrong rationales of rows with an alpha.
    """
    rows = _build_rows(settings, pool, rationales, instructions, ctx, wrong)
    if target_logprobs is not None:
        known = read_target_logprobs(target_logprobs)
        rows = [replace(row, target_logprobs=known[row.key]) for row in rows]
    options = settings.train
    n_reference = len(rows) if epoch_pool is None else len(read_pool(epoch_pool))
    validate: GreedyAccuracy | HeldOutLoss | None = _build_validation(settings, pool, ctx)
    if options.holdout_size is not None:
        kept, held_out = split_held_out(rows, options.holdout_size, settings.seed)
        if held_out:  # a size of 0 % holds out nothing and leaves the validation split
            rows, validate = kept, HeldOutLoss(tuple(held_out), options.max_length)
    name, revision = get_model_and_revision(model)
    job = lm.TrainingJob(
        name, rows, output_dir, options,
        n_updates=settings.compute_n_updates(n_reference),
        n_updates_before=settings.count_updates_before(n_reference), seed=settings.seed,
        device=ctx.device, revision=revision, lora=settings.lora, validate=validate,
        label=f"train {settings.role} on {settings.rows.source}", runtime=ctx.runtime,
        workdir=output_dir / RESUME_DIR, objective=settings.objective, order=settings.order,
        reference=(
            None if reference is None else lm.ReferenceSpec(*get_model_and_revision(reference))
        ),
    )  # fmt: skip
    if isinstance(settings.rows, QuestionRows):
        assert pool is not None
        reward = AnswerReward({e.id: e for e in read_pool(pool)}, read_answer_type(pool))
        limit = resolve_token_limit(settings.max_new_tokens, model)
        job = replace(job, reward=reward, max_rollout_tokens=limit)
    log = lm.fine_tune(job, ctx.progress)
    if text := describe_long_targets(settings, log.max_target_tokens):
        ctx.notify(text)
    speed = None
    if isinstance(validate, GreedyAccuracy):
        limit = choose_token_limit(settings.max_new_tokens, log.max_target_tokens)
        speed = report_generation(validate.speed, ctx, settings.role, limit)
    return TrainStats(**dict(log), generation=speed)


warm_up = train.with_name("warm_up", "Assistant, warm-up")
train_half = train.with_name("train_half", "Assistant, on half of the pool")
instruct_student = train.with_name("instruct_student", "Student, instruction")
train_assistant = train.with_name("train_assistant", "Assistant, trained")
train_student = train.with_name("train_student", "Student, trained")


def describe_long_targets(settings: TrainSettings, n_tokens: int) -> str | None:
    """Return what to set if the model cannot write the longest target that it learned.

    n_tokens: tokens of this target. None if it can, or if the model only answers later.
    """
    limit = choose_token_limit(settings.max_new_tokens, n_tokens)
    if settings.prompt_mode != "cot" or n_tokens <= limit:
        return None
    return (
        f"The longest target of the {settings.role} has {n_tokens} tokens, and "
        f"{settings.role}.max_new_tokens is {limit}. Answers of this length will be cut off. Set "
        f"it to {choose_token_limit('auto', n_tokens)} or more, or remove the key."
    )


def choose_warm_up_examples(pool: Sequence[Example], settings: TrainSettings) -> list[Example]:
    """Return the examples of the pool whose gold answers are the rows, in their order."""
    assert isinstance(settings.rows, AnswerRows)
    size, half = settings.rows.size, settings.rows.half
    rows = range(len(pool)) if half is None else choose_half(len(pool), half, settings.seed)
    labeled = [e for e in (pool[i] for i in rows) if e.answer is not None]
    if not labeled:
        raise InputError(
            "The pool has no gold answer to train on. Set assistant.warm_up_size: 0 and a "
            "select.difficulty that needs no gold answer, and leave answers_only out of the arms."
        )
    if size is None:
        return labeled
    n = max(1, min(len(labeled), resolve_count(size, len(pool))))
    sampled = make_rng(settings.seed, "warm-up").permutation(len(labeled))[:n]
    return [labeled[i] for i in sorted(sampled.tolist())]


def _build_rows(
    settings: TrainSettings,
    pool: Artifact | None,
    rationales: Sequence[Artifact],
    instructions: Artifact | None,
    ctx: RunContext,
    wrong: Sequence[Artifact] = (),
) -> list[TrainingSequence]:
    rows = settings.rows
    if isinstance(rows, InstructionRows):
        assert instructions is not None, "a training on instructions has them as an input"
        found = read_instructions(instructions.path)
        instructions.check_unchanged()
        if found.skipped:
            ctx.notify(f"{instructions.path}: {found.describe_skipped()}.")
        return [
            TrainingSequence(str(i), row.prompt, (TargetSpan(row.response),))
            for i, row in enumerate(found.rows)
        ]
    assert pool is not None, "a training on answers or rationales has a pool as an input"
    if isinstance(rows, RationaleRows) and rows.alpha is not None:
        signed, n_wrong = build_signed_rows(
            pool, rationales, wrong, rows.target_format, rows.answer_weight, rows.alpha
        )
        if not n_wrong:
            ctx.notify(
                "No question has a correct and a wrong rationale, so there is nothing to unlearn. "
                "The student learns the correct rationales alone."
            )
        return signed
    if isinstance(rows, RationaleRows):
        return build_rationale_sequences(
            pool, rationales, rows.target_format, rows.answer_weight, settings.reference_sees
        )
    if isinstance(rows, QuestionRows):
        return [
            replace(
                TrainingSequence(e.id, render_cot_prompt(e), build_answer_target(format_answer(e))),
                mean_weight=1.0,  # every text that replaces the answer weighs the same
            )
            for e in _list_labeled(read_pool(pool))
        ]
    return [
        TrainingSequence(
            e.id, render_answer_prompt(e), build_answer_target(format_answer(e), rows.answer_weight)
        )
        for e in choose_warm_up_examples(read_pool(pool), settings)
    ]


def _list_labeled(examples: Sequence[Example]) -> list[Example]:
    if labeled := [e for e in examples if e.answer is not None]:
        return labeled
    raise InputError("The pool has no gold answer that could reward a text. Leave out the method.")


def _build_validation(
    settings: TrainSettings, pool: Artifact | None, ctx: RunContext
) -> GreedyAccuracy | None:
    """Return the accuracy on the validation split; None if there is no split."""
    if pool is None or not (examples := tuple(read_validation(pool))):
        return None
    batch_size = ctx.runtime.get_batch_size(settings.role)
    return GreedyAccuracy(
        examples, read_answer_type(pool), settings.prompt_mode, settings.max_new_tokens, batch_size
    )
