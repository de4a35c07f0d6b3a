"""What a stage works through on this machine, known before it runs: rows, updates and the model.

The one idea: the kind of a stage, the names of its inputs and its settings say enough. A stage that
is not known here is counted like the others of its kind, so no local work is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from bridgekd.config import Lora, Role, Train, count_of
from bridgekd.core.throughput import WorkKind
from bridgekd.edges.store import Artifact, Planned
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.annotate import AnnotateSettings, SampleRationalesSettings
from bridgekd.stages.check_rationales import CheckSettings
from bridgekd.stages.model_backend import BackendSettings
from bridgekd.stages.pilot import (
    MAX_HOLD_OUT,
    HoldOutSettings,
    SubsampleSettings,
    resolve_fraction,
)
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.score_pool import ScorePoolSettings, StudentUncertaintySettings
from bridgekd.stages.stats import KeptStats, PurchaseStats
from bridgekd.stages.train import AnswerRows, TrainSettings
from bridgekd.variants import VariantSettings

TextType = Literal["rationale", "answer", "instruction"]


@dataclass(frozen=True, slots=True)
class PlannedData:
    """Counts of rows, and mean numbers of characters. `n_answers` are the teacher's answers of a
    purchase, by the name of its folder.
    """

    n_pool: int
    n_validation: int
    n_test: int
    n_instructions: int
    n_answers: Mapping[str, int]
    question_characters: float
    answer_characters: float
    instruction_characters: float


@dataclass(frozen=True, slots=True)
class Work:
    """`n_rows` rows of one kind of work with one model.

    `base` is the model that the user provided and that this model descends from. A row is a
    training sequence, a generated text or a scored question; `text` is what follows its prompt.
    `n_updates`, `train` and `lora` are those of a training, `difficulty` that of a scored pool.
    """

    kind: WorkKind
    base: Artifact
    role: Role
    n_rows: int
    text: TextType
    max_new_tokens: int = 0
    n_updates: int = 0
    train: Train | None = None
    lora: Lora | None = None
    difficulty: VariantSettings | None = None
    is_served: bool = False
    is_embedding: bool = False

    @property
    def base_name(self) -> str:
        """The name of the model, without its revision."""
        return self.base.path.name.partition("@")[0]


class _TrainSettings(Protocol):
    @property
    def train(self) -> Train: ...
    @property
    def lora(self) -> Lora | None: ...


class WorkCounter:
    """The local work of every stage of one plan."""

    def __init__(
        self, planned: Mapping[str, Planned], data: PlannedData, assistant: Artifact
    ) -> None:
        self._planned, self._data, self._assistant = planned, data, assistant

    def count(self, todo: Planned) -> list[Work]:
        """Return the work of a stage; empty for one that uses no local model."""
        counters = {
            WorkKind.TRAINING: self._count_training,
            WorkKind.GENERATION: self._count_generation,
            WorkKind.SCORING: self._count_scoring,
        }
        works = list(counters[todo.stage.kind](todo)) if todo.stage.kind in counters else []
        return works + list(self._count_confidence(todo))

    def _count_training(self, todo: Planned) -> Iterator[Work]:
        settings = cast(_TrainSettings, todo.settings)
        train = settings.train
        n_updates = train.n_updates(max(1, self._count_epoch(todo)))
        n_rows = n_updates * train.batch_size
        text: TextType = "instruction" if "instructions" in todo.inputs else "answer"
        text = "rationale" if "rationales" in todo.inputs else text
        yield self._make(
            todo, WorkKind.TRAINING, n_rows, text,
            n_updates=n_updates, train=train, lora=settings.lora,
        )  # fmt: skip
        if reference := todo.inputs.get("reference"):  # reads every sequence, as a judge does
            yield self._make(todo, WorkKind.SCORING, n_rows, "rationale", model=reference[0])
        if text == "instruction" or not self._data.n_validation or train.held_out is not None:
            return
        if isinstance(todo.settings, TrainSettings) and todo.settings.prompt_mode == "answer":
            text = "answer"
        n_texts = train.evaluations * self._data.n_validation
        yield self._make(todo, WorkKind.GENERATION, n_texts, text)

    def _count_generation(self, todo: Planned) -> Iterator[Work]:
        settings, n_texts = todo.settings, 1
        text: TextType = "rationale"
        n_rows = self._count_pool(todo)
        if "test" in todo.inputs:
            n_rows = self._count_held_out(todo.inputs["test"][0]) or self._data.n_test
        if isinstance(settings, AnnotateSettings):
            n_texts += settings.n_samples
        elif isinstance(settings, SampleRationalesSettings | StudentUncertaintySettings):
            n_texts = settings.n_samples
        elif isinstance(settings, PredictSettings) and settings.ask == "answer":
            text = "answer"
        yield self._make(todo, WorkKind.GENERATION, n_rows * n_texts, text)

    def _count_scoring(self, todo: Planned) -> Iterator[Work]:
        settings, n_rows = todo.settings, self._count_pool(todo)
        if encoder := todo.inputs.get("encoder"):
            yield self._make(
                todo, WorkKind.SCORING, n_rows, "answer", model=encoder[0], is_embedding=True
            )
        elif not isinstance(settings, ScorePoolSettings):
            yield self._make(todo, WorkKind.SCORING, n_rows, "answer")
        else:
            difficulty = settings.difficulty
            yield self._make(todo, WorkKind.SCORING, n_rows, "answer", difficulty=difficulty)
            measure = MEASURES.load(difficulty)
            n_texts = measure.count_answers(MEASURES.parse_options(difficulty))
            if measure.score_answers is not None:
                yield self._make(todo, WorkKind.GENERATION, n_rows * n_texts, "answer")

    def _count_confidence(self, todo: Planned) -> Iterator[Work]:
        """What a model that scores rationales reads."""
        settings = todo.settings
        if not isinstance(settings, CheckSettings | AnnotateSettings | StudentUncertaintySettings):
            return
        if settings.confidence is None:
            return
        n_rows = self._count_pool(todo)
        if "completions" in todo.inputs:
            n_rows = self._count_answers(todo.inputs["completions"][0])
        (judge,) = todo.inputs.get("assistant") or todo.inputs["model"]
        yield self._make(todo, WorkKind.SCORING, n_rows, "rationale", model=judge)

    def _make(
        self,
        todo: Planned,
        kind: WorkKind,
        n_rows: int,
        text: TextType,
        model: Artifact | None = None,
        **more: Any,
    ) -> Work:
        """A work of this stage, with its own model unless another one is given."""
        base = self._find_base(model or todo.inputs["model"][0])
        is_served, settings = False, todo.settings
        if isinstance(settings, BackendSettings):
            backend = settings.backend if kind is WorkKind.GENERATION else settings.scoring
            is_served = backend == "server"
        return Work(
            kind, base, "assistant" if base == self._assistant else "student", n_rows, text,
            int(getattr(settings, "max_new_tokens", 0)), is_served=is_served, **more,
        )  # fmt: skip

    def _find_base(self, model: Artifact) -> Artifact:
        while model.path.name in self._planned:
            (model,) = self._planned[model.path.name].inputs["model"]
        return model

    def _count_epoch(self, todo: Planned) -> int:
        """Rows of one epoch, which may be more than are trained on."""
        if "epoch_pool" in todo.inputs:
            return self._data.n_pool
        if "instructions" in todo.inputs:
            return self._data.n_instructions
        if "rationales" in todo.inputs:
            return sum(self._count_rationales(a) for a in todo.inputs["rationales"])
        rows = todo.settings.rows if isinstance(todo.settings, TrainSettings) else None
        size = rows.size if isinstance(rows, AnswerRows) else None
        n_pool = self._count_pool(todo)
        return n_pool if size is None else count_of(size, n_pool)

    def _count_rationales(self, artifact: Artifact) -> int:
        """Rationales of a stage; of a purchase to come, as if every answer were kept."""
        if artifact.has_manifest:
            return artifact.read_stats(KeptStats).n_kept
        todo = self._planned[artifact.path.name]
        if "completions" in todo.inputs:
            return self._count_answers(todo.inputs["completions"][0])
        if isinstance(todo.settings, SubsampleSettings):
            n = self._count_rationales(todo.inputs["rationales"][0])
            return resolve_fraction(todo.settings.fraction, n)
        return self._count_pool(todo)

    def _count_answers(self, purchase: Artifact) -> int:
        if purchase.has_manifest:
            return purchase.read_stats(PurchaseStats).n_queries
        return self._data.n_answers[purchase.path.name]

    def _count_pool(self, todo: Planned) -> int:
        held_out = map(self._count_held_out, todo.inputs.get("pool", ()))
        return self._data.n_pool - sum(held_out)

    def _count_held_out(self, artifact: Artifact) -> int:
        """Questions that the pilot held out of this pool; 0 for any other artifact."""
        settings = self._planned[artifact.path.name].settings
        if not isinstance(settings, HoldOutSettings):
            return 0
        return min(settings.n, self._data.n_pool // MAX_HOLD_OUT)
