"""The whole recipe, and its sections about data, models and measuring."""

import math
import re
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from bridgekd.recipe.assistant_server import AssistantServerOptions, BackendName
from bridgekd.recipe.field_types import CountOrPercent, Dollars, FrozenModel
from bridgekd.recipe.teacher import BudgetOptions, TeacherOptions
from bridgekd.variants import VariantRef

EmbeddingTransform = Literal["none", "center"]
Role = Literal["assistant", "student"]


def _check_run_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value):
        raise ValueError(f"{value!r} cannot name a run: use letters, digits, dots and dashes")
    return value


RunName = Annotated[str, AfterValidator(_check_run_name)]


class ColumnNames(FrozenModel):
    """Which column of the user's file holds what."""

    question: str = "question"
    answer: str = "answer"
    id: str | None = None  # None: the row's number
    choices: str | None = None
    domain: str | None = None


class DataOptions(FrozenModel):
    """Where the questions are: files (JSONL, CSV, Parquet) or a Hub data set id with a split after
    a colon.
    """

    train: str
    test: str
    columns: ColumnNames = ColumnNames()
    answer_type: VariantRef = VariantRef(name="text")
    unlabeled: bool = False  # whether rows of train may have no answer
    validation_size: CountOrPercent = (
        "10%"  # set aside from train for early stopping, the same for every arm
    )


class LoraOptions(FrozenModel):
    """PEFT's LoRA; the defaults are its authors' for language models.

    `quantize`: the frozen base is held in 4 bits (QLoRA's nf4) or 8 while it is trained on; needs
    bitsandbytes. What comes out is an adapter for the base as it was.
    """

    quantize: Literal["4bit", "8bit"] | None = None
    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class TrainOptions(FrozenModel):
    """One training. `epochs` counts passes over the stage's reference size unless `updates` is
    given.

    Rows of more than `max_length` tokens are dropped and counted, or, with `on_overflow:
    truncate_prompt`, lose the start of their prompt; a target is never cut. Early stopping keeps
    the weights of the best greedy accuracy on the validation split; with `held_out`, of the
    smallest loss on so many of the training's own rows, which are then not trained on. After
    `patience` evaluations in a row without a better one it ends.
    """

    epochs: float = Field(3.0, gt=0)
    updates: int | None = Field(None, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(32, ge=1)  # sequences per optimiser update
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_length: int = Field(1024, ge=8)
    on_overflow: Literal["drop", "truncate_prompt"] = "drop"
    n_evaluations: int = Field(4, ge=1)  # evenly spaced, the last at the end
    holdout_size: CountOrPercent | None = None
    early_stopping_patience: int | None = Field(None, ge=1)  # None: always to the last update

    def compute_n_updates(self, n_reference: int) -> int:
        """Optimiser updates for `n_reference` rows per epoch."""
        return self.updates or max(1, math.ceil(n_reference * self.epochs / self.batch_size))


class RuntimeOptions(FrozenModel):
    """Speed and memory of the local models. Nothing here is in a fingerprint.

    `assistant_batch_size` and `student_batch_size` are sequences at once when a model generates or
    scores (None: 64, or fewer if free memory does not hold them; halved when memory runs out). A
    micro-batch of a training has at most `micro_batch_tokens` tokens, padding included
    (None: a whole update, or what free memory holds of it). It is halved when memory runs out; at
    one row gradient checkpointing is switched on. `num_processes` share every update, one per GPU.
    `attn_implementation` is one of transformers, such as flash_attention_2. A killed training
    resumes from a checkpoint that is at most `checkpoint_interval_s` seconds old. `report_to` names
    trackers of transformers, such as wandb or tensorboard.
    """

    assistant_batch_size: int | None = Field(None, ge=1)
    student_batch_size: int | None = Field(None, ge=1)
    micro_batch_tokens: int | None = Field(None, ge=8)
    num_processes: int = Field(1, ge=1, le=64)
    attn_implementation: str | None = None
    checkpoint_interval_s: float = Field(300.0, ge=0)
    report_to: tuple[str, ...] = ()

    def get_batch_size(self, role: Role) -> int | None:
        """Return the batch size of generation and scoring for a model of this role."""
        return self.assistant_batch_size if role == "assistant" else self.student_batch_size


class AssistantOptions(FrozenModel):
    """The mid-size local model (TA). It is always trained in process; `backend` is where it then
    writes, `scoring` where it gives log-probabilities.
    """

    model: str
    revision: str | None = None
    lora: LoraOptions | None = None
    warm_up_size: CountOrPercent = "2%"  # 0: none, for a pool without gold answers
    warm_up_train: TrainOptions = TrainOptions()
    train: TrainOptions = TrainOptions()
    answer_weight: float = Field(1.0, ge=0)  # lambda of the two-part loss
    max_new_tokens: int = Field(256, ge=1)
    generation_backend: BackendName = "transformers"
    scoring_backend: BackendName = "transformers"
    server: AssistantServerOptions | None = None

    @model_validator(mode="after")
    def _check_server_is_set(self) -> "AssistantOptions":
        for key in ("generation_backend", "scoring_backend"):
            if getattr(self, key) == "server" and self.server is None:
                raise ValueError(
                    f"{key}: server needs assistant.server with a command or a base_url"
                )
        return self


class StudentOptions(FrozenModel):
    """The tiny local model. `instruct` is the generic instruction set (JSONL, or a Hub id)."""

    model: str
    revision: str | None = None
    lora: LoraOptions | None = None
    instruction_data: str | None = None
    instruction_train: TrainOptions = TrainOptions()
    train: TrainOptions = TrainOptions()
    target_format: Literal["joint", "multi_task"] = "joint"
    answer_weight: float = Field(1.0, ge=0)
    max_new_tokens: int = Field(256, ge=1)


class SelectOptions(FrozenModel):
    """How the questions to pay for are chosen."""

    strategy: VariantRef = VariantRef(name="bridge_greedy")
    difficulty: VariantRef = VariantRef(name="loss")
    embedding_transform: EmbeddingTransform = (
        "center"  # what embeddings go through before distances are taken
    )
    n_rounds: int = Field(1, ge=1, le=100)  # bridge: the assistant is trained again between them
    embedding_model: str | None = (
        None  # a sentence-transformers model; None: the assistant's own states
    )


class CheckOptions(FrozenModel):
    """Which teacher rationales enter the training: those whose answer is the gold one, those that
    the assistant is confident of, or all.
    """

    filter: Literal["correct", "confident", "all"] = "correct"


class AnnotateOptions(FrozenModel):
    """Which of the assistant's own rationales enter the training. `consistent`: those whose answer
    most of its `samples` give, too.
    """

    filter: Literal["all", "correct", "confident", "self_consistent"] = "all"
    n_samples: int = Field(5, ge=2, le=64)


class ConfidenceOptions(FrozenModel):
    """How sure the assistant is of a rationale, and how sure it must be where `filter: confident`.

    `keep_share` instead of `at_least` keeps the most confident share: for an assistant whose
    confidences are badly calibrated.
    """

    measure: Literal["p_true", "likelihood"] = "p_true"
    threshold: float = Field(0.5, ge=0, le=1)
    keep_fraction: CountOrPercent | None = None


class EvaluateOptions(FrozenModel):
    """Measuring. Teacher queries on test questions are paid apart from the budget, 0 unless asked
    for. `steps` names the checker that counts the wrong steps of rationales, where a task has one.
    """

    teacher_queries: CountOrPercent = 0
    step_checker: str | None = None


class PilotOptions(FrozenModel):
    """The pilot of `plan --pilot`. It spends `budget_fraction` of the budget on the first questions
    that `direct` asks, trains `n_seeds` models of a kind on each part of the answers that
    `budget_grid` names, and measures them on `n_eval` pool questions that no model has seen.
    """

    budget_fraction: float = Field(0.2, gt=0, le=1)
    budget_grid: tuple[float, ...] = (0.5, 1.0)
    n_eval: int = Field(400, ge=30)
    n_seeds: int = Field(1, ge=1, le=20)

    @field_validator("budget_grid")
    @classmethod
    def _check_increasing(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        increasing = all(a < b for a, b in pairwise((0, *value)))
        if not value or value[-1] != 1 or not increasing:
            raise ValueError("Give fractions in increasing order. The last one must be 1.")
        return value


class Recipe(FrozenModel):
    """The whole file."""

    name: RunName = "run"
    method: VariantRef = VariantRef(name="bridge")
    data: DataOptions
    teacher: TeacherOptions
    budget: BudgetOptions
    assistant: AssistantOptions
    student: StudentOptions
    select: SelectOptions = SelectOptions()
    check: CheckOptions = CheckOptions()
    annotate: AnnotateOptions = AnnotateOptions()
    confidence: ConfidenceOptions = ConfidenceOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    pilot: PilotOptions = PilotOptions()
    store: str = "runs"
    ledger: str = "ledger.db"
    hard_limit_usd: Dollars | None = None
    device: str = "auto"
    runtime: RuntimeOptions = RuntimeOptions()
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_accepted_limit(self) -> "Recipe":
        if self.budget.accepted_rationales is not None and self.check.filter == "confident":
            raise ValueError(
                "budget.accepted_rationales is counted while answers come in, when nobody has "
                "asked the "
                "assistant yet; use check.filter: correct or all"
            )
        return self
