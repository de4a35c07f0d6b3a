"""How long a run's local work will take: stage by stage, from earlier stages of the store or by a
rule of thumb. Waiting for the teacher is not counted.

The one idea: rows a second of the same stage with the same model, if the store has it; of the same
kind of work with that model, if it has that; else operations. What cannot be told is named.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bridgekd import settings as of
from bridgekd.config import Recipe, Train, count_of
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
from bridgekd.edges.machine import peak_of, size_of
from bridgekd.edges.store import MANIFEST, Artifact, Inputs, Planned, Stage, Stats
from bridgekd.errors import BadInput
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.buying import limits_of
from bridgekd.stages.pilot import SubsampleSettings, resolve_fraction
from bridgekd.stages.scoring import ScorePoolStats
from bridgekd.stages.stats import GenerationStats, KeptStats, TrainStats

_FORM = 20  # tokens of a prompt's request and marks
_CHARACTERS = (5.0, 3.0)  # a token, at most and at least
_ANSWER = (2.0, 16.0)  # tokens of an answer alone


class _Trained(Stats):
    """What the settings of all trainings have."""

    train: Train


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
        read: dict[str, Callable[[Any, Inputs], list[Work]]] = {
            "warm_up": self._warm_up,
            "train_assistant": self._on_bought,
            "instruct_student": lambda s, i: self._trained(s.train, self._sizes.n_instructions),
            "annotate": lambda s, i: self._written(self._sizes.n_pool * (1 + s.samples), s),
            "sample_rationales": lambda s, i: self._written(self._sizes.n_pool * s.samples, s),
            "weigh_student": lambda s, i: self._written(self._sizes.n_pool * s.samples, s),
            "predict": lambda s, i: self._written(self._sizes.n_test, s),
            "score_pool": self._scored,
        }
        return read.get(todo.stage.name, self._on_pool)(todo.settings, todo.inputs)

    def _on_pool(self, s: Any, inputs: Inputs) -> list[Work]:
        return self._trained(s.train, self._sizes.n_pool, s)

    def _warm_up(self, s: of.WarmUp, inputs: Inputs) -> list[Work]:
        n = max(1, count_of(s.share, self._sizes.n_pool))
        return self._trained(s.train, n, s, answers=True)

    def _on_bought(self, s: of.TrainModel, inputs: Inputs) -> list[Work]:
        """As if every answer that may be bought were kept."""
        n = sum(self._bought(lessons) for lessons in inputs["rationales"])
        return self._trained(s.train, max(1, n), s)

    def _bought(self, lessons: Artifact) -> int:
        if lessons.done:
            return lessons.read_stats(KeptStats).n_kept
        todo = self._planned[lessons.path.name]
        if isinstance(todo.settings, SubsampleSettings):
            n = self._bought(todo.inputs["rationales"][0])
            return resolve_fraction(todo.settings.fraction, n)
        asked = self._planned[todo.inputs["completions"][0].path.name].settings
        assert isinstance(asked, of.QueryTeacher)
        return limits_of(asked.budget, self._sizes.n_pool, asked.part).queries or 0

    def _trained(
        self, train: Train, n: int, judged: Any = None, *, answers: bool = False
    ) -> list[Work]:
        """The training, and what it writes for early stopping."""
        prompt, target = self._sizes.prompt, _ANSWER if answers else self._rationale
        tokens = (prompt[0] + target[0], min(prompt[1] + target[1], train.max_length))
        works = [Work(WorkKind.TRAINING, train.n_updates(n) * train.batch_size, tokens)]
        if judged is not None and self._sizes.n_validation and train.held_out is None:
            n_texts = train.evaluations * self._sizes.n_validation
            works += self._written(n_texts, judged, answers=answers)
        return works

    def _written(self, n: int, s: Any, *, answers: bool = False) -> list[Work]:
        answers = answers or getattr(s, "ask", "explain") == "answer"
        target = _ANSWER if answers else self._rationale
        most = min(target[1], s.max_new_tokens)
        prompt = self._sizes.prompt
        return [Work(WorkKind.GENERATION, n, (prompt[0] + min(target[0], most), prompt[1] + most))]

    def _scored(self, s: of.ScorePool, inputs: Inputs) -> list[Work]:
        prompt, n = self._sizes.prompt, self._sizes.n_pool
        works = [Work(WorkKind.SCORING, n, (prompt[0] + _ANSWER[0], prompt[1] + _ANSWER[1]))]
        measure = MEASURES.load(s.difficulty)
        n_answers = measure.count_answers(MEASURES.parse_options(s.difficulty))
        if n_answers:
            works += self._written(n * n_answers, s, answers=True)
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
        rows = stats.n_updates * artifact.read_settings(_Trained).train.batch_size
        return rows / seconds if not stats.resumed_at and seconds else None
    if kind is WorkKind.SCORING:
        return artifact.read_stats(ScorePoolStats).n_scored / seconds if seconds else None
    speed = artifact.read_stats(GenerationStats).generation
    if kind is not WorkKind.GENERATION or speed is None or not speed.seconds:
        return None
    return speed.n_texts / speed.seconds


def _base(artifact: Artifact, planned: Mapping[str, Planned]) -> Artifact:
    """The model that a person brought, from which this stage's model descends."""
    while artifact.path.name in planned:
        (artifact,) = planned[artifact.path.name].inputs["model"]
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
