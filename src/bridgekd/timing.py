"""How long a run's local work will take: stage by stage, from earlier stages of the store or by a
rule of thumb. Waiting for the teacher is not counted.

The one idea: rows a second of the same stage with the same model, if the store has it; of the same
kind of work with that model, if it has that; else operations. What cannot be told is named.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel

from bridgekd import settings as of
from bridgekd.config import Recipe, Train, count_of
from bridgekd.core.durations import Duration, Kind, Work, added, by_rates, by_rule
from bridgekd.core.prompts import render_question
from bridgekd.edges.machine import peak_of, size_of
from bridgekd.edges.store import MANIFEST, Artifact
from bridgekd.records import Example
from bridgekd.selection.difficulty import MEASURES
from bridgekd.stages.buying import limits_of
from bridgekd.stages.pilot import SubsampleSettings, resolve_fraction

KINDS: dict[str, Kind] = {
    "warm_up": "training", "train_assistant": "training", "instruct_student": "training",
    "train_student": "training", "train_on_answers": "training", "train_with_mentor": "training",
    "annotate": "writing", "sample_rationales": "writing", "weigh_student": "writing",
    "predict": "writing", "score_pool": "scoring",
}  # fmt: skip
_MODEL_AT = {"instruct_student": 0, "predict": 2}  # which input is the model; else the second
_FORM = 20  # tokens of a prompt's request and marks
_CHARACTERS = (5.0, 3.0)  # a token, at most and at least
_ANSWER = (2.0, 16.0)  # tokens of an answer alone

MadeFrom = Mapping[str, tuple[BaseModel, tuple[Artifact, ...]]]


@dataclass(frozen=True, slots=True)
class Hours:
    """The time of the stages still to come, by kind: of `n_measured` by what the store measured, of
    `n_by_rule` by the rule of thumb for `device`, and why that of the rest is unknown.
    """

    by_kind: Mapping[Kind, Duration]
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
    pending: Sequence[Artifact], made_from: MadeFrom, sizes: Sizes, recipe: Recipe, store: Path
) -> Hours:
    """The time of those of the `pending` stages that this machine works on."""
    rates, here = _Rates(store), _Recipe(recipe, sizes, made_from)
    by_kind: dict[Kind, list[Duration]] = defaultdict(list)
    unknown, named = [], []
    n_measured = n_by_rule = 0
    peak = peak_of(recipe.device)
    for artifact in pending:
        if artifact.stage not in KINDS:
            continue
        works, base = here.works(artifact), _base(artifact, made_from)
        measured = rates.of(artifact.stage, base.fingerprint)
        if measured:
            n_measured += 1
            by_kind[KINDS[artifact.stage]].append(by_rates(works[0].n_rows, measured))
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

    def __init__(self, recipe: Recipe, sizes: Sizes, made_from: MadeFrom) -> None:
        self._recipe, self._sizes, self._made_from = recipe, sizes, made_from
        expected = recipe.teacher.expected_tokens
        self._rationale = expected or (32, recipe.teacher.max_tokens)

    def works(self, artifact: Artifact) -> list[Work]:
        settings, inputs = self._made_from[artifact.path.name]
        read: dict[str, Callable[[Any, Sequence[Artifact]], list[Work]]] = {
            "warm_up": self._warm_up,
            "train_assistant": self._on_bought,
            "instruct_student": lambda s, i: self._trained(s.train, self._sizes.n_instructions),
            "annotate": lambda s, i: self._written(self._sizes.n_pool * (1 + s.samples), s),
            "sample_rationales": lambda s, i: self._written(self._sizes.n_pool * s.samples, s),
            "weigh_student": lambda s, i: self._written(self._sizes.n_pool * s.samples, s),
            "predict": lambda s, i: self._written(self._sizes.n_test, s),
            "score_pool": self._scored,
        }
        return read.get(artifact.stage, self._on_pool)(settings, inputs)

    def _on_pool(self, s: Any, inputs: Sequence[Artifact]) -> list[Work]:
        return self._trained(s.train, self._sizes.n_pool, s)

    def _warm_up(self, s: of.WarmUp, inputs: Sequence[Artifact]) -> list[Work]:
        n = max(1, count_of(s.share, self._sizes.n_pool))
        return self._trained(s.train, n, s, answers=True)

    def _on_bought(self, s: of.TrainModel, inputs: Sequence[Artifact]) -> list[Work]:
        """As if every answer that may be bought were kept."""
        n = sum(self._bought(lessons) for lessons in inputs[2:])
        return self._trained(s.train, max(1, n), s)

    def _bought(self, lessons: Artifact) -> int:
        if lessons.done:
            return int(lessons.facts["n_kept"])
        settings, inputs = self._made_from[lessons.path.name]
        if isinstance(settings, SubsampleSettings):
            return resolve_fraction(settings.fraction, self._bought(inputs[0]))
        _, answers, *_ = inputs
        asked = self._made_from[answers.path.name][0]
        assert isinstance(asked, of.QueryTeacher)
        return limits_of(asked.budget, self._sizes.n_pool, asked.part).queries or 0

    def _trained(
        self, train: Train, n: int, judged: Any = None, *, answers: bool = False
    ) -> list[Work]:
        """The training, and what it writes for early stopping."""
        prompt, target = self._sizes.prompt, _ANSWER if answers else self._rationale
        tokens = (prompt[0] + target[0], min(prompt[1] + target[1], train.max_length))
        works = [Work("training", train.n_updates(n) * train.batch_size, tokens)]
        if judged is not None and self._sizes.n_validation and train.held_out is None:
            n_texts = train.evaluations * self._sizes.n_validation
            works += self._written(n_texts, judged, answers=answers)
        return works

    def _written(self, n: int, s: Any, *, answers: bool = False) -> list[Work]:
        answers = answers or getattr(s, "ask", "explain") == "answer"
        target = _ANSWER if answers else self._rationale
        most = min(target[1], s.max_new_tokens)
        prompt = self._sizes.prompt
        return [Work("writing", n, (prompt[0] + min(target[0], most), prompt[1] + most))]

    def _scored(self, s: of.ScorePool, inputs: Sequence[Artifact]) -> list[Work]:
        prompt, n = self._sizes.prompt, self._sizes.n_pool
        works = [Work("scoring", n, (prompt[0] + _ANSWER[0], prompt[1] + _ANSWER[1]))]
        measure = MEASURES.load(s.difficulty)
        n_answers = measure.count_answers(MEASURES.parse_options(s.difficulty))
        if n_answers:
            works += self._written(n * n_answers, s, answers=True)
        return works


class _Rates:
    """Rows a second of the store's finished stages, by stage and by kind, with each base model."""

    def __init__(self, store: Path) -> None:
        found = {p.parent.name: json.loads(p.read_text()) for p in store.glob(f"*/{MANIFEST}")}
        self._by: dict[tuple[str, str], list[float]] = defaultdict(list)
        for manifest in found.values():
            rate = _rate(manifest) if manifest["stage"] in KINDS else None
            if rate is not None:
                base = _made_of(manifest, found)
                self._by[manifest["stage"], base].append(rate)
                self._by[KINDS[manifest["stage"]], base].append(rate)

    def of(self, stage: str, base: str) -> list[float]:
        return self._by.get((stage, base)) or self._by.get((KINDS[stage], base), [])


def _rate(manifest: Mapping[str, Any]) -> float | None:
    """Rows a second; None where a try was cut short, as then it is not told of all rows."""
    facts, seconds = manifest["facts"], manifest["seconds"]
    if KINDS[manifest["stage"]] == "training":
        rows = facts["n_updates"] * manifest["settings"]["train"]["batch_size"]
        seconds = None if facts.get("resumed_at") else seconds
    elif manifest["stage"] == "score_pool":
        rows = facts["n_scored"]
    else:
        rows, seconds = (facts.get("generation", {}).get(k) for k in ("n_texts", "seconds"))
    return rows / seconds if rows and seconds else None


def _base(artifact: Artifact, made_from: MadeFrom) -> Artifact:
    """The model that a person brought, from which this stage's model descends."""
    while artifact.path.name in made_from:
        artifact = made_from[artifact.path.name][1][_MODEL_AT.get(artifact.stage, 1)]
    return artifact


def _made_of(manifest: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> str:
    """The same by manifests: the base model's fingerprint."""
    while True:
        source = manifest["inputs"][_MODEL_AT.get(manifest["stage"], 1)]
        if source["folder"] not in found:
            return str(source["fingerprint"])
        manifest = found[source["folder"]]


def _name(model: Artifact) -> str:
    return model.path.name.partition("@")[0]


def _said(n: int) -> str:
    return f"{n / 1e9:.3g} G" if n >= 1e9 else f"{n / 1e6:.3g} M"
