"""How long a run's local work will take: stage by stage, from earlier stages of the store or by a
rule of thumb. Waiting for the teacher is not counted.

The one idea: rows a second of the same stage with the same model, if the store has it; of the same
kind of work with that model, if it has that; else operations. What cannot be told is named.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bridgekd.config import Recipe, count_of
from bridgekd.core.durations import (
    OPERATIONS,
    Duration,
    Work,
    WorkKind,
    added,
    by_rates,
    by_rule,
)
from bridgekd.core.prompts import render_question
from bridgekd.cost.budget_slice import compute_limits
from bridgekd.edges.machine import peak_of, size_of
from bridgekd.edges.store import MANIFEST, Artifact, Inputs, Planned, Stage
from bridgekd.errors import BadInput
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.annotate import AnnotateSettings, SampleRationalesSettings
from bridgekd.stages.pilot import SubsampleSettings, resolve_fraction
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.query_teacher import QueryTeacherSettings
from bridgekd.stages.score_pool import ScorePoolSettings, StudentUncertaintySettings
from bridgekd.stages.stats import GenerationStats, KeptStats, ScoringStats, TrainStats
from bridgekd.stages.train import AnswerRows, InstructionRows, RowSettings, TrainSettings

_FORM = 20  # tokens of a prompt's request and marks
_CHARACTERS = (5.0, 3.0)  # a token, at most and at least
_ANSWER = (2.0, 16.0)  # tokens of an answer alone


@dataclass(frozen=True, slots=True)
class Hours:
    """The time of the stages still to come, by kind: of `n_measured` by what the store measured, of
    `n_by_rule` by the rule of thumb for `device`, and why that of the rest is unknown.
    """

    by_kind: Mapping[WorkKind, Duration]
    n_measured: int
    n_by_rule: int
    device: str
    sizes: tuple[str, ...]  # of the models that the rule was used for, and what says so
    unknown: tuple[str, ...]

    @property
    def whole(self) -> Duration:
        """All kinds together."""
        return added(self.by_kind.values())


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is counted in rows, and how long a question is."""

    n_pool: int
    n_validation: int
    n_test: int
    n_instructions: int
    characters: float

    @property
    def prompt(self) -> tuple[float, float]:
        """Tokens of a prompt, at least and at most."""
        least, most = (_FORM + self.characters / per for per in _CHARACTERS)
        return least, most


def sizes_of(pool: Sequence[Example], n_validation: int, n_test: int, n_instructions: int) -> Sizes:
    """The sizes of a pool that was read."""
    shown = pool[:1000]
    characters = fmean(len(render_question(e)) for e in shown) if shown else 0.0
    return Sizes(len(pool), n_validation, n_test, n_instructions, characters)


def hours_of(
    pending: Sequence[Planned],
    planned: Mapping[str, Planned],
    sizes: Sizes,
    recipe: Recipe,
    store: Path,
) -> Hours:
    """The time of those of the `pending` stages that this machine works on."""
    rates, here = _Rates(store), _Recipe(recipe, sizes, planned)
    by_kind: dict[WorkKind, list[Duration]] = defaultdict(list)
    unknown, named = [], []
    n_measured = n_by_rule = 0
    peak = peak_of(recipe.device)
    for todo in pending:
        if todo.stage.kind not in OPERATIONS:
            continue
        works, base = here.works(todo), _base(todo.artifact, planned)
        if base is None:
            unknown.append(f"the model of {todo.stage.name} is not known here")
            continue
        measured = rates.of(todo.stage, base.fingerprint)
        if measured:
            n_measured += 1
            by_kind[todo.stage.kind].append(by_rates(works[0].n_rows, measured))
            continue
        size = size_of(base)
        if size is None or peak is None:
            what = f"the size of {_name(base)}" if size is None else f"the peak of {recipe.device}"
            unknown.append(f"{what} is not known here")
            continue
        n_by_rule += 1
        named.append(f"{_said(size.n)} for {_name(base)} (by {size.by})")
        for work in works:
            by_kind[work.kind].append(by_rule(work, size.n, peak.operations))
    return Hours(
        {kind: added(told) for kind, told in by_kind.items()},
        n_measured, n_by_rule, peak.device if peak else recipe.device,
        tuple(dict.fromkeys(named)), tuple(dict.fromkeys(unknown)),
    )  # fmt: skip


class _Recipe:
    """What each stage of a recipe would work through; the first piece is the stage's own kind."""

    def __init__(self, recipe: Recipe, sizes: Sizes, planned: Mapping[str, Planned]) -> None:
        self._recipe, self._sizes, self._planned = recipe, sizes, planned
        expected = recipe.teacher.expected_tokens
        self._rationale = expected or (32, recipe.teacher.max_tokens)

    def works(self, todo: Planned) -> list[Work]:
        n_pool = self._sizes.n_pool
        match todo.settings:
            case TrainSettings() as s:
                return self._trained(s, todo.inputs)
            case AnnotateSettings() as s:
                return self._written(n_pool * (1 + s.n_samples), s.max_new_tokens)
            case SampleRationalesSettings() | StudentUncertaintySettings() as s:
                return self._written(n_pool * s.n_samples, s.max_new_tokens)
            case PredictSettings() as s:
                return self._written(self._sizes.n_test, s.max_new_tokens, s.ask == "answer")
            case ScorePoolSettings() as s:
                return self._scored(s)
        # a stage of someone else: as if it were one pass over the pool
        prompt, target = self._sizes.prompt, self._rationale
        tokens = (prompt[0] + target[0], prompt[1] + target[1])
        return [Work(todo.stage.kind, n_pool, tokens)]

    def _trained(self, s: TrainSettings, inputs: Inputs) -> list[Work]:
        """The training, and what it writes for early stopping."""
        answers = isinstance(s.rows, AnswerRows)
        prompt, target = self._sizes.prompt, _ANSWER if answers else self._rationale
        tokens = (prompt[0] + target[0], min(prompt[1] + target[1], s.train.max_length))
        n = self._sizes.n_pool if "epoch_pool" in inputs else self._count_rows(s.rows, inputs)
        n_rows = s.train.n_updates(max(1, n)) * s.train.batch_size
        works = [Work(WorkKind.TRAINING, n_rows, tokens)]
        if "pool" in inputs and self._sizes.n_validation and s.train.held_out is None:
            n_texts = s.train.evaluations * self._sizes.n_validation
            works += self._written(n_texts, s.max_new_tokens, s.prompt_mode == "answer")
        return works

    def _count_rows(self, rows: RowSettings, inputs: Inputs) -> int:
        if isinstance(rows, InstructionRows):
            return self._sizes.n_instructions
        if isinstance(rows, AnswerRows):
            n_pool = self._sizes.n_pool
            return n_pool if rows.size is None else count_of(rows.size, n_pool)
        return sum(self._count_rationales(artifact) for artifact in inputs["rationales"])

    def _count_rationales(self, artifact: Artifact) -> int:
        """As if every answer that may be purchased were kept."""
        if artifact.done:
            return artifact.read_stats(KeptStats).n_kept
        todo = self._planned[artifact.path.name]
        if isinstance(todo.settings, SubsampleSettings):
            n = self._count_rationales(todo.inputs["rationales"][0])
            return resolve_fraction(todo.settings.fraction, n)
        for purchase in todo.inputs.get("completions", ()):
            asked = self._planned[purchase.path.name].settings
            if isinstance(asked, QueryTeacherSettings):
                return compute_limits(asked.budget, self._sizes.n_pool, asked.part).queries or 0
        return self._sizes.n_pool

    def _written(self, n: int, max_new_tokens: int, answers: bool = False) -> list[Work]:
        least, most = _ANSWER if answers else self._rationale
        most, prompt = min(most, max_new_tokens), self._sizes.prompt
        return [Work(WorkKind.GENERATION, n, (prompt[0] + min(least, most), prompt[1] + most))]

    def _scored(self, s: ScorePoolSettings) -> list[Work]:
        prompt, n = self._sizes.prompt, self._sizes.n_pool
        works = [Work(WorkKind.SCORING, n, (prompt[0] + _ANSWER[0], prompt[1] + _ANSWER[1]))]
        measure = MEASURES.load(s.difficulty)
        n_answers = measure.count_answers(MEASURES.parse_options(s.difficulty))
        if n_answers:
            works += self._written(n * n_answers, s.max_new_tokens, answers=True)
        return works


class _Rates:
    """Rows a second of the store's finished stages, by stage and by kind, with each base model."""

    def __init__(self, store: Path) -> None:
        self._by: dict[tuple[str, str], list[float]] = defaultdict(list)
        for file in store.glob(f"*/{MANIFEST}"):
            stage, _, fingerprint = file.parent.name.rpartition("-")
            self._add(Artifact(stage, fingerprint, file.parent))

    def of(self, stage: Stage[Any, Any], base: str) -> list[float]:
        return self._by.get((stage.name, base)) or self._by.get((stage.kind, base), [])

    def _add(self, artifact: Artifact) -> None:
        try:
            rate, kind = _rate(artifact), artifact.manifest.kind
        except BadInput:  # of another version of bridgekd
            return
        if rate is not None:
            base = _made_of(artifact)
            self._by[artifact.stage, base].append(rate)
            self._by[kind, base].append(rate)


def _rate(artifact: Artifact) -> float | None:
    """Rows a second; None where a try was cut short, as then it is not told of all rows."""
    kind, seconds = artifact.manifest.kind, artifact.manifest.seconds
    if kind is WorkKind.TRAINING:
        stats = artifact.read_stats(TrainStats)
        rows = stats.n_updates * artifact.read_settings(TrainSettings).train.batch_size
        return rows / seconds if not stats.resumed_at and seconds else None
    if kind is WorkKind.SCORING:
        return artifact.read_stats(ScoringStats).n_scored / seconds if seconds else None
    speed = artifact.read_stats(GenerationStats).generation
    if kind is not WorkKind.GENERATION or speed is None or not speed.seconds:
        return None
    return speed.n_texts / speed.seconds


def _base(artifact: Artifact, planned: Mapping[str, Planned]) -> Artifact | None:
    """The user's model from which this stage's model descends; None without an input `model`."""
    while artifact.path.name in planned:
        models = planned[artifact.path.name].inputs.get("model", ())
        if not models:
            return None
        artifact = models[0]
    return artifact


def _made_of(artifact: Artifact) -> str:
    """The same by manifests: the base model's fingerprint."""
    while artifact.has_manifest:
        artifact = artifact.get_input("model")
    return artifact.fingerprint


def _name(model: Artifact) -> str:
    return model.path.name.partition("@")[0]


def _said(n: int) -> str:
    return f"{n / 1e9:.3g} G" if n >= 1e9 else f"{n / 1e6:.3g} M"
