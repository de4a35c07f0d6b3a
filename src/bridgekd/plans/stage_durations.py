"""How long the local work of a plan takes. Waiting for the teacher is not included.

The one idea: only measured speeds count. A stage that the store has made before with the same model
takes as long per row. Any other stage uses the speeds that `plan --time` measured on this machine.
Where neither exists, the time is unknown, and the missing speeds are named.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from pydantic import BaseModel

from bridgekd.config import Recipe
from bridgekd.core.calls import TeacherRequest
from bridgekd.core.prompts import render_question
from bridgekd.core.throughput import WorkKind
from bridgekd.edges.store import MANIFEST, Artifact, Planned, PlanStore
from bridgekd.errors import BadInput
from bridgekd.io.hardware import describe_device
from bridgekd.ledger.history import mean_answer_tokens
from bridgekd.plans.model_speed import (
    CalibrationSample,
    ModelSpeed,
    SpeedKey,
    estimate_seconds,
    make_key,
    read_speeds,
)
from bridgekd.plans.stage_work import PlannedData, Work, WorkCounter
from bridgekd.records import Example
from bridgekd.runs import Run
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.query_teacher import build_request_settings, iter_requests
from bridgekd.stages.score_pool import ScorePoolSettings, ScorePoolStats
from bridgekd.stages.stats import GenerationStats, TrainStats
from bridgekd.stages.train import TrainSettings
from bridgekd.teacher.transport import ResolvedTeacher
from bridgekd.teacher.transports import resolve_teacher

ANSWER_TOKENS = 4.0  # the mark before an answer, and the end token
ACCURACY = 1.5  # the time is within this factor of the estimate
DEFAULT_RATIONALE_TOKENS = 150
CALIBRATION_S = 15.0  # about, for one model and kind of work
N_SAMPLES = 64  # questions that speeds are measured with
_N_SHOWN = 1000  # rows whose lengths are averaged


@dataclass(frozen=True, slots=True)
class RationaleLength:
    """The mean tokens of a rationale, and where the number is from; `is_assumed`: from nowhere."""

    n_tokens: float
    source: str
    is_assumed: bool = False


@dataclass(frozen=True, slots=True)
class StageDuration:
    """The seconds of one stage; `is_measured`: by earlier stages, else by `plan --time`."""

    kind: WorkKind
    seconds: float
    is_measured: bool


@dataclass(frozen=True, slots=True)
class DurationEstimate:
    """The time of the stages still to run, by the name of their folder.

    Not in it are `n_served` stages that use the assistant's server, and the stages whose works have
    no measured speed: `missing` has one work of each.
    """

    stages: Mapping[str, StageDuration]
    n_served: int
    missing: tuple[Work, ...]
    rationale: RationaleLength

    @property
    def by_kind(self) -> dict[WorkKind, float]:
        """Seconds of all stages of a kind."""
        kinds = dict.fromkeys((stage.kind for stage in self.stages.values()), 0.0)
        for stage in self.stages.values():
            kinds[stage.kind] += stage.seconds
        return kinds

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.by_kind.values())

    @property
    def uses_rationale_length(self) -> bool:
        """Whether the length of a rationale is part of the estimate."""
        return not all(stage.is_measured for stage in self.stages.values())


@dataclass(frozen=True, slots=True)
class LoadedData:
    """The user's data as a plan reads it."""

    pool: Sequence[Example]
    n_validation: int
    n_test: int
    instructions: Sequence[tuple[str, str]]


Calibrate = Callable[[Sequence[Work], CalibrationSample, str], None]


def estimate_durations(
    run: Run,
    store: PlanStore,
    data: LoadedData,
    n_answers: Mapping[str, int],
    calibrate: Calibrate | None,
) -> DurationEstimate | None:
    """Return the time of the stages that a plan has still to run; None if there are none.

    n_answers: of the purchases to come, by folder. `calibrate` measures what speeds are missing.
    """
    pending = [todo for todo in store.planned.values() if not todo.artifact.done]
    if not pending:
        return None
    teacher = resolve_teacher(run.recipe.teacher)
    step = max(1, len(data.pool) // N_SAMPLES)
    examples = list(data.pool[::step][:N_SAMPLES])
    requests = iter_requests(build_request_settings(run.recipe), examples, run.few_shot)
    rationale = find_rationale_length(teacher, run.ctx.ledger, requests)
    shape = _describe_data(data, n_answers)
    counter = WorkCounter(store.planned, shape, run.assistant)
    estimator = _DurationEstimator(counter, shape, run.recipe, rationale)
    durations = estimator.estimate(pending, store.folder)
    if calibrate is None or not durations.missing:
        return durations
    sample = CalibrationSample(examples, data.instructions[:N_SAMPLES], rationale.n_tokens)
    calibrate(durations.missing, sample, estimator.machine)
    return estimator.estimate(pending, store.folder)


def _describe_data(data: LoadedData, n_answers: Mapping[str, int]) -> PlannedData:
    shown, instructions = data.pool[:_N_SHOWN], data.instructions[:_N_SHOWN]
    return PlannedData(
        n_pool=len(data.pool),
        n_validation=data.n_validation,
        n_test=data.n_test,
        n_instructions=len(data.instructions),
        n_answers=n_answers,
        question_characters=fmean(len(render_question(e)) for e in shown),
        answer_characters=fmean(len(e.answer or "") for e in shown),
        instruction_characters=fmean(len(a) + len(b) for a, b in instructions or [("", "")]),
    )


class _DurationEstimator:
    """Estimates of one plan. `machine` is the name of the device."""

    def __init__(
        self,
        counter: WorkCounter,
        data: PlannedData,
        recipe: Recipe,
        rationale: RationaleLength,
    ) -> None:
        self._counter, self._data, self._runtime = counter, data, recipe.runtime
        self.machine, self.rationale = describe_device(recipe.device), rationale

    def estimate(self, pending: Sequence[Planned], store: Path) -> DurationEstimate:
        """Return the time of the pending stages, by the speeds of a store."""
        rates, speeds = _StageRates(store), read_speeds(store)
        stages: dict[str, StageDuration] = {}
        missing: dict[SpeedKey, Work] = {}
        n_served = 0
        for todo in pending:
            works, folder = self._counter.count(todo), todo.artifact.path.name
            if not works:
                continue
            kind, row_s = works[0].kind, rates.get(todo, works[0].base)
            keys = [make_key(work, self.machine, self._runtime) for work in works]
            lacking = {k: w for k, w in zip(keys, works, strict=True) if k not in speeds}
            if row_s is not None:
                stages[folder] = StageDuration(kind, row_s * works[0].n_rows, is_measured=True)
            elif any(work.is_served for work in works):
                n_served += 1
            elif lacking:
                missing |= lacking
            else:
                seconds = speeds[keys[0]].load_s
                pairs = zip(works, keys, strict=True)
                seconds += sum(self._estimate(work, speeds[key]) for work, key in pairs)
                stages[folder] = StageDuration(kind, seconds, is_measured=False)
        return DurationEstimate(stages, n_served, tuple(missing.values()), self.rationale)

    def _estimate(self, work: Work, speed: ModelSpeed) -> float:
        tokens, data = speed.tokens, self._data
        added = tokens.answer_prompt if work.text == "answer" else tokens.explain_prompt
        prompt = tokens.per_character * data.question_characters + added
        target = tokens.per_character * data.answer_characters + ANSWER_TOKENS
        if work.text == "rationale":
            target += self.rationale.n_tokens
        if work.text == "instruction":
            prompt, target = added, tokens.per_character * data.instruction_characters
        if work.kind is WorkKind.GENERATION:
            target = min(target, work.max_new_tokens)
        return estimate_seconds(work, speed, prompt=prompt, target=target)


def find_rationale_length(
    teacher: ResolvedTeacher, ledger: Path, requests: Iterable[TeacherRequest]
) -> RationaleLength:
    """Return the expected length of a rationale: of saved or recorded answers, else a guess.

    requests: a sample of those of the plan. Tokens of the teacher count as tokens of a student.
    """
    known = teacher.load_answers()
    if known is not None:
        costs = [known.get_cost(request) for request in requests]
        lengths = [cost.n_completion_tokens for cost in costs if cost.n_completion_tokens]
        if lengths:
            return RationaleLength(fmean(lengths), f"{len(lengths)} recorded answers")
    options = teacher.teacher
    saved = mean_answer_tokens(ledger, options.provider, options.model)
    if saved is not None:
        return RationaleLength(saved, "the answers in the ledger")
    if options.expected_tokens is not None:
        return RationaleLength(fmean(options.expected_tokens), "teacher.expected_tokens")
    n_tokens = min(DEFAULT_RATIONALE_TOKENS, options.max_tokens)
    return RationaleLength(n_tokens, "an assumption", is_assumed=True)


class _StageRates:
    """Seconds per row of the finished stages of a store."""

    def __init__(self, store: Path) -> None:
        self._made: dict[tuple[str, str], list[tuple[Artifact, float]]] = defaultdict(list)
        for file in store.glob(f"*/{MANIFEST}"):
            stage, _, fingerprint = file.parent.name.rpartition("-")
            artifact = Artifact(stage, fingerprint, file.parent)
            try:
                seconds = _compute_row_seconds(artifact)
            except BadInput:  # of another version of bridgekd
                continue
            if seconds is not None:
                self._made[stage, _find_base(artifact).fingerprint].append((artifact, seconds))

    def get(self, todo: Planned, base: Artifact) -> float | None:
        """Return the median over stages of this name, model and kind of settings; None: none."""
        found = [
            seconds
            for artifact, seconds in self._made[todo.stage.name, base.fingerprint]
            if _takes_as_long(artifact, todo.settings)
        ]
        return median(found) if found else None


def _takes_as_long(artifact: Artifact, settings: BaseModel) -> bool:
    """Whether a row of this stage took as long as with these settings of the same stage."""
    match settings:
        case PredictSettings():
            return artifact.read_settings(PredictSettings).ask == settings.ask
        case ScorePoolSettings():
            return artifact.read_settings(ScorePoolSettings).difficulty == settings.difficulty
        case TrainSettings():
            return artifact.read_settings(TrainSettings).lora == settings.lora
    return True


def _find_base(artifact: Artifact) -> Artifact:
    while artifact.has_manifest:
        artifact = artifact.get_input("model")
    return artifact


def _compute_row_seconds(artifact: Artifact) -> float | None:
    """Seconds per row of a finished stage; None if it has no local work, or was interrupted."""
    manifest = artifact.manifest
    if manifest.kind is WorkKind.TRAINING:
        stats = artifact.read_stats(TrainStats)
        n_rows = stats.n_updates * artifact.read_settings(TrainSettings).train.batch_size
        return None if stats.resumed_at else manifest.seconds / n_rows
    if manifest.kind is WorkKind.SCORING and "model" in manifest.inputs:
        return manifest.seconds / artifact.read_stats(ScorePoolStats).n_scored
    speed = artifact.read_stats(GenerationStats).generation
    if manifest.kind is not WorkKind.GENERATION or speed is None:
        return None
    return speed.seconds / speed.n_texts
