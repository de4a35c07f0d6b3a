"""The whole recipe, and its parts about data, selection, filters and evaluation."""

import re
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from bridgekd.recipe.field_types import MAX_COUNT, CountOrPercent, Dollars, FrozenModel
from bridgekd.recipe.local_models import AssistantOptions, RuntimeOptions, StudentOptions
from bridgekd.recipe.teacher import BudgetOptions, TeacherOptions
from bridgekd.variants import VariantRef


def _check_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError("Use auto, cuda, cuda:0, mps or cpu.")
    return value


def _check_run_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value):
        raise ValueError("Use up to 80 letters, digits, dots and dashes.")
    return value


class ColumnNames(FrozenModel):
    """The columns of the data files.

    Attributes:
        question: Column of the question.
        answer: Column of the gold answer.
        id: Column of the id. Default: the row number.
        choices: Column of the choices of a multiple-choice question.
        domain: Column of the domain, for results by domain.
    """

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    choices: str | None = None
    domain: str | None = None


class DataOptions(FrozenModel):
    """The data sets: files (JSONL, CSV, Parquet), or Hub ids with a split after a colon.

    Attributes:
        train: Data set of the pool of questions.
        test: Data set of the test questions.
        columns: The columns of both.
        answer_type: Type of the answers.
        unlabeled: Whether rows of `train` may have no answer.
        validation_size: Part of `train` for early stopping. It is the same for every arm.
    """

    train: str
    test: str
    columns: ColumnNames = ColumnNames()
    answer_type: VariantRef = VariantRef(name="text")
    unlabeled: bool = False
    validation_size: CountOrPercent = "10%"


class SelectOptions(FrozenModel):
    """Selection of the questions for the teacher.

    Attributes:
        strategy: Selection strategy.
        quotas: Each domain (`domain`) or k-means cluster (`cluster`) gets its share of the picks
            of `strategy`. Default: no quotas.
        mixture: Shares of the quotas. Default: those of the pool.
        difficulty: Measure of difficulty.
        per_dollar: Whether `strategy` divides the gain of each question by the forecast cost of a
            kept rationale. From the second round on, earlier answers give the forecast.
        embedding_transform: Transform of the embeddings before distances are computed.
        n_rounds: Rounds of selection. The assistant is trained again between two rounds.
        embedding_model: A sentence-transformers model. Default: the assistant's hidden states.
    """

    strategy: VariantRef = VariantRef(name="bridge_greedy")
    quotas: Literal["domain", "cluster"] | None = None
    mixture: VariantRef = VariantRef(name="as_is")
    difficulty: VariantRef = VariantRef(name="loss")
    per_dollar: bool = False
    embedding_transform: Literal["none", "center"] = "center"
    n_rounds: int = Field(1, ge=1, le=100)
    embedding_model: str | None = None


class CheckOptions(FrozenModel):
    """Filter of the teacher's rationales.

    Attributes:
        filter: `correct` keeps rationales with the gold answer, `confident` those with a high
            confidence of the assistant, `all` keeps all.
        max_dropped: A purchase stops if its first answers, this many, are all dropped. None: it
            never stops for this reason.
    """

    filter: Literal["correct", "confident", "all"] = "correct"
    max_dropped: int | None = Field(20, ge=1, le=MAX_COUNT)


class AnnotateOptions(FrozenModel):
    """The assistant's own rationales, and their filter.

    Attributes:
        filter: `all`, `correct` and `confident` as in `check`. `self_consistent` keeps rationales
            with the answer of most samples.
        n_samples: Rationales per question, sampled at temperature 0.7. Default: one, the most
            likely text. For `self_consistent`: the samples that vote; default: 5.
    """

    filter: Literal["all", "correct", "confident", "self_consistent"] = "all"
    n_samples: int | None = Field(None, ge=1, le=64)

    @model_validator(mode="after")
    def _check_n_samples(self) -> "AnnotateOptions":
        n_samples = self.n_samples or 5
        if self.filter == "self_consistent" and n_samples == 1:
            raise ValueError("n_samples: 1 is no vote. Use 2 samples or more for self_consistent.")
        if self.filter == "confident" and self.n_samples is not None and n_samples > 1:
            raise ValueError(
                "filter: confident scores one rationale per question. Use n_samples: 1, or filter: "
                "correct and student.selector: confident."
            )
        return self


class ConfidenceOptions(FrozenModel):
    """Confidence of the assistant in a rationale, for `filter: confident`.

    Attributes:
        measure: `p_true`: probability of the judgment "True". `likelihood`: geometric mean of the
            token probabilities.
        threshold: Minimum confidence.
        keep_fraction: Number or percentage of the most confident rationales to keep. It replaces
            `threshold` for an assistant with badly calibrated confidence.
    """

    measure: Literal["p_true", "likelihood"] = "p_true"
    threshold: float = Field(0.5, ge=0, le=1)
    keep_fraction: CountOrPercent | None = None


class EvaluateOptions(FrozenModel):
    """Evaluation on the test questions.

    Attributes:
        teacher_queries: Number of test questions for the teacher. Their cost is not part of the
            budget.
        n_samples: Number of answers to sample from each student for each test question, for pass@k.
        temperature: Temperature of these samples.
        n_memorized: Number of training rationales of each trained student that are checked for
            memorization.
        step_checker: Checker that counts wrong reasoning steps, for tasks that have one.
    """

    teacher_queries: CountOrPercent = 0
    n_samples: int = Field(0, ge=0, le=1000)
    temperature: float = Field(0.7, gt=0, le=10)
    n_memorized: int = Field(0, ge=0, le=MAX_COUNT)
    step_checker: str | None = None


class PilotOptions(FrozenModel):
    """The pilot of `bridgekd plan --pilot`. It buys the first questions of the method `direct`.

    Attributes:
        budget_fraction: Fraction of the budget that the pilot spends.
        budget_grid: Fractions of these answers to train models on, in increasing order.
        n_eval: Number of pool questions for evaluation. No model is trained on them.
        n_seeds: Number of seeds per trained model.
    """

    budget_fraction: float = Field(0.2, gt=0, le=1)
    budget_grid: tuple[float, ...] = Field((0.5, 1.0), max_length=20)
    n_eval: int = Field(400, ge=30, le=MAX_COUNT)
    n_seeds: int = Field(1, ge=1, le=20)

    @field_validator("budget_grid")
    @classmethod
    def _check_increasing(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value[-1:] != (1,) or not all(a < b for a, b in pairwise((0, *value))):
            raise ValueError("Give fractions in increasing order. The last one must be 1.")
        return value


class Recipe(FrozenModel):
    """A whole recipe.

    Attributes:
        name: Name of the run. Default: the name of the recipe file.
        method: Distillation method.
        data: Data sets.
        teacher: Paid teacher.
        budget: Limits of the purchase.
        assistant: Assistant model.
        student: Student model.
        select: Selection of the questions.
        check: Filter of the teacher's rationales.
        annotate: Filter of the assistant's rationales.
        confidence: Confidence for both filters.
        evaluate: Evaluation.
        pilot: Pilot run.
        store: Folder of the artifacts.
        ledger: File of the ledger.
        hard_limit_usd: Maximum dollars that all runs of the ledger may cost. Default: no limit.
        device: Device of the local models: `auto`, `cuda`, `mps` or `cpu`.
        runtime: Speed and memory.
        seed: Seed of all randomness.

    >>> recipe = Recipe(
    ...     data={"train": "train.jsonl", "test": "test.jsonl"},
    ...     teacher={"model": "gpt-4o"},
    ...     budget={"queries": "5%", "usd": 2},
    ...     assistant={"model": "Qwen/Qwen2.5-7B-Instruct"},
    ...     student={"model": "Qwen/Qwen2.5-0.5B"},
    ... )
    >>> recipe.select.strategy.name, recipe.teacher.list_price.output
    ('bridge_greedy', 10.0)
    """

    name: Annotated[str, AfterValidator(_check_run_name)] = "run"
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
    device: Annotated[str, AfterValidator(_check_device)] = "auto"
    runtime: RuntimeOptions = RuntimeOptions()
    seed: int = Field(0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _check_accepted_limit(self) -> "Recipe":
        if self.budget.accepted_rationales is not None and self.check.filter == "confident":
            raise ValueError(
                "budget.accepted_rationales counts during the purchase, before the assistant's "
                "confidence is known. Use check.filter: correct or all."
            )
        return self

    def with_samples(self, n_samples: int) -> "Recipe":
        """Return this recipe with another number of queries per selected question."""
        teacher = self.teacher.model_copy(update={"n_samples": n_samples})
        return self.model_copy(update={"teacher": teacher})
