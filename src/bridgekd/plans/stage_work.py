"""What a stage works through on this machine, known before it runs: rows, texts and the model.

The one idea: the kind of a stage, the names of its inputs and its settings say enough. A stage that
is not known here is counted like the others of its kind, so no local work is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, cast

from bridgekd.io.artifact_store import Artifact, Planned
from bridgekd.prompts import render_question
from bridgekd.recipe import LoraOptions, Role, TrainOptions, resolve_count
from bridgekd.records import Example
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
from bridgekd.throughput import WorkKind

_N_SHOWN = 1000  # rows whose lengths are averaged


@dataclass(frozen=True, slots=True)
class PlannedData:
    """The user's data as a plan reads it. `n_answers` are the teacher's answers of a purchase, by
    the name of its folder.
    """

    pool: Sequence[Example]
    n_validation: int
    n_test: int
    instructions: Sequence[tuple[str, str]]
    n_answers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Workload:
    """`n_rows` rows of one kind of work with one model.

    `base` is the model that the user provided and that this model descends from. A row is a
    training sequence, a generated text or a scored question: a prompt of so many characters, and a
    target, which may hold a rationale. `n_updates`, `train` and `lora` are those of a training.
    `is_timed`: whether its speed can be measured here.
    """

    kind: WorkKind
    base: Artifact
    role: Role
    n_rows: int
    prompt_characters: float
    target_characters: float
    has_rationale: bool
    max_new_tokens: int
    is_timed: bool
    is_instruction: bool
    n_updates: int = 0
    train: TrainOptions | None = None
    lora: LoraOptions | None = None

    @property
    def base_name(self) -> str:
        """The name of the model, without its revision."""
        return self.base.path.name.partition("@")[0]


class _TrainSettings(Protocol):
    @property
    def train(self) -> TrainOptions: ...
    @property
    def lora(self) -> LoraOptions | None: ...


class WorkCounter:
    """The local work of every stage of one plan."""

    def __init__(
        self, planned: Mapping[str, Planned], data: PlannedData, assistant: Artifact
    ) -> None:
        self._planned, self._data, self._assistant = planned, data, assistant
        shown, pairs = data.pool[:_N_SHOWN], data.instructions[:_N_SHOWN] or [("", "")]
        self._question = fmean(len(render_question(e)) for e in shown)
        self._answer = fmean(len(e.answer or "") for e in shown)
        self._instruction = tuple(fmean(map(len, texts)) for texts in zip(*pairs, strict=True))

    def count(self, todo: Planned) -> list[Workload]:
        """Return the work of a stage; empty for one that uses no local model."""
        counters = {
            WorkKind.TRAINING: self._count_training,
            WorkKind.GENERATION: self._count_generation,
            WorkKind.SCORING: self._count_scoring,
        }
        works = list(counters[todo.stage.kind](todo)) if todo.stage.kind in counters else []
        return works + list(self._count_confidence(todo))

    def _count_training(self, todo: Planned) -> Iterator[Workload]:
        settings = cast(_TrainSettings, todo.settings)
        train, learns_rationales = settings.train, "rationales" in todo.inputs
        n_updates = train.compute_n_updates(max(1, self._count_epoch(todo)))
        n_rows = n_updates * train.batch_size
        yield self._make(
            todo, WorkKind.TRAINING, n_rows, has_rationale=learns_rationales,
            n_updates=n_updates, train=train, lora=settings.lora,
        )  # fmt: skip
        if "reference" in todo.inputs:  # it reads every sequence
            yield self._make(todo, WorkKind.SCORING, n_rows, "reference")
        if "instructions" in todo.inputs or train.holdout_size is not None:
            return
        explains = isinstance(todo.settings, TrainSettings) and todo.settings.prompt_mode == "cot"
        n_texts = train.n_evaluations * self._data.n_validation
        if n_texts:
            yield self._make(todo, WorkKind.GENERATION, n_texts, has_rationale=explains)

    def _count_generation(self, todo: Planned) -> Iterator[Workload]:
        settings, n_texts, has_rationale = todo.settings, 1, True
        n_rows = self._count_pool(todo)
        if "test" in todo.inputs:
            n_rows = self._count_held_out(todo.inputs["test"][0]) or self._data.n_test
        if isinstance(settings, AnnotateSettings):
            n_texts += settings.n_samples
        elif isinstance(settings, SampleRationalesSettings | StudentUncertaintySettings):
            n_texts = settings.n_samples
        elif isinstance(settings, PredictSettings):
            has_rationale = settings.prompt_mode == "cot"
        yield self._make(todo, WorkKind.GENERATION, n_rows * n_texts, has_rationale=has_rationale)

    def _count_scoring(self, todo: Planned) -> Iterator[Workload]:
        settings, n_rows = todo.settings, self._count_pool(todo)
        name = "model" if "model" in todo.inputs else list(todo.inputs)[-1]
        yield self._make(todo, WorkKind.SCORING, n_rows, name, has_rationale=False)
        if isinstance(settings, ScorePoolSettings):
            measure = MEASURES.load(settings.difficulty)
            n_texts = measure.count_answers(MEASURES.parse_options(settings.difficulty))
            n_texts = max(n_texts, measure.score_tokens is not None)
            if n_texts:
                yield self._make(todo, WorkKind.GENERATION, n_rows * n_texts, has_rationale=False)

    def _count_confidence(self, todo: Planned) -> Iterator[Workload]:
        """What a model that scores rationales reads."""
        settings = todo.settings
        if not isinstance(settings, CheckSettings | AnnotateSettings | StudentUncertaintySettings):
            return
        if settings.confidence is not None:
            n_rows = self._count_pool(todo)
            if "completions" in todo.inputs:
                n_rows = self._count_answers(todo.inputs["completions"][0])
            name = "assistant" if "assistant" in todo.inputs else "model"
            yield self._make(todo, WorkKind.SCORING, n_rows, name)

    def _make(
        self,
        todo: Planned,
        kind: WorkKind,
        n_rows: int,
        model: str = "model",
        *,
        has_rationale: bool = True,
        **more: Any,
    ) -> Workload:
        """A work of this stage with the model of this name among its inputs."""
        base, settings, is_timed = todo.inputs[model][0], todo.settings, model != "encoder"
        while base.path.name in self._planned:
            (base,) = self._planned[base.path.name].inputs["model"]
        if isinstance(settings, BackendSettings):
            backend = settings.backend if kind is WorkKind.GENERATION else settings.scoring
            is_timed = is_timed and backend != "server"
        is_instruction = "instructions" in todo.inputs
        prompt, target = self._instruction if is_instruction else (self._question, self._answer)
        return Workload(
            kind, base, "assistant" if base == self._assistant else "student", n_rows, prompt,
            target, has_rationale, int(getattr(settings, "max_new_tokens", 0)), is_timed,
            is_instruction, **more,
        )  # fmt: skip

    def _count_epoch(self, todo: Planned) -> int:
        """Rows of one epoch, which may be more than are trained on."""
        if "epoch_pool" in todo.inputs:
            return len(self._data.pool)
        if "instructions" in todo.inputs:
            return len(self._data.instructions)
        if "rationales" in todo.inputs:
            return sum(self._count_rationales(a) for a in todo.inputs["rationales"])
        rows = todo.settings.rows if isinstance(todo.settings, TrainSettings) else None
        size = rows.size if isinstance(rows, AnswerRows) else None
        n_pool = self._count_pool(todo)
        return n_pool if size is None else resolve_count(size, n_pool)

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
        return len(self._data.pool) - sum(held_out)

    def _count_held_out(self, artifact: Artifact) -> int:
        """Questions that the pilot held out of this pool; 0 for any other artifact."""
        settings = self._planned[artifact.path.name].settings
        if not isinstance(settings, HoldOutSettings):
            return 0
        return min(settings.n, len(self._data.pool) // MAX_HOLD_OUT)
