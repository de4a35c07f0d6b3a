"""How long the local work of a plan takes. Waiting for the teacher is not included.

The one idea: only measured speeds count. A stage that the store has made before with the same model
takes as long per row. Any other stage uses the speeds that `plan --time` measured on this machine.
Where neither exists, the time is unknown, and the missing speeds are named.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from pydantic import BaseModel

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import MANIFEST, Artifact, Planned, PlanStore
from bridgekd.ledger.usage_history import average_answer_tokens
from bridgekd.plans.model_speed import (
    N_SAMPLES,
    SpeedKey,
    estimate_seconds,
    make_key,
    measure_speeds,
    read_speeds,
)
from bridgekd.plans.stage_work import PlannedData, WorkCounter, Workload
from bridgekd.recipe import TeacherOptions
from bridgekd.runs.run import Run
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.score_pool import ScorePoolSettings, ScorePoolStats
from bridgekd.stages.stats import GenerationStats, TrainStats
from bridgekd.stages.train import TrainSettings
from bridgekd.throughput import WorkKind

ACCURACY = 1.5  # the time is within this factor of the estimate
DEFAULT_RATIONALE_TOKENS = 150
CALIBRATION_S = 15.0  # about, for one model and kind of work


@dataclass(frozen=True, slots=True)
class StageDuration:
    """The seconds of one stage; `is_measured`: by earlier stages, else by `plan --time`."""

    kind: WorkKind
    seconds: float
    is_measured: bool


@dataclass(frozen=True, slots=True)
class DurationEstimate:
    """The time of the stages still to run, by the name of their folder.

    Not in it are the stages whose works have no measured speed (`missing` has one work of each),
    and `n_untimed` stages that use a server or an embedding model. `rationale_source` says what
    `rationale_tokens`, the expected length of a rationale, is from; None: it is assumed.
    """

    stages: Mapping[str, StageDuration]
    missing: tuple[Workload, ...]
    n_untimed: int
    rationale_tokens: float
    rationale_source: str | None

    @property
    def by_kind(self) -> dict[WorkKind, float]:
        """Seconds of all stages of a kind."""
        kinds: dict[WorkKind, float] = defaultdict(float)
        for stage in self.stages.values():
            kinds[stage.kind] += stage.seconds
        return dict(kinds)

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.by_kind.values())


def estimate_durations(
    run: Run, store: PlanStore, data: PlannedData, *, measure: bool = False
) -> DurationEstimate | None:
    """Return the time of the stages that a plan has still to run; None if there are none.

    With `measure` the missing speeds are measured first, which loads the models.
    """
    pending = [todo for todo in store.planned.values() if not todo.artifact.done]
    if not pending:
        return None
    n_tokens, source = find_rationale_length(run.recipe.teacher, run.ctx.ledger)
    counter = WorkCounter(store.planned, data, run.assistant)
    works = {todo.artifact.path.name: counter.count(todo) for todo in pending}

    def estimate() -> DurationEstimate:
        rates, speeds = _StageRates(store.folder), read_speeds(store.folder)
        stages: dict[str, StageDuration] = {}
        missing: dict[SpeedKey, Workload] = {}
        n_untimed = 0
        for todo in pending:
            folder = todo.artifact.path.name
            if not (own := works[folder]):
                continue
            row_s, keys = rates.get(todo, own[0].base), [make_key(w, run.ctx) for w in own]
            lacking = {k: w for k, w in zip(keys, own, strict=True) if k not in speeds}
            if row_s is not None:
                stages[folder] = StageDuration(own[0].kind, row_s * own[0].n_rows, True)
            elif not all(work.is_timed for work in own):
                n_untimed += 1
            elif lacking:
                missing |= lacking
            else:
                pairs = zip(own, keys, strict=True)
                seconds = sum(estimate_seconds(w, speeds[k], n_tokens) for w, k in pairs)
                stages[folder] = StageDuration(own[0].kind, seconds + speeds[keys[0]].load_s, False)
        return DurationEstimate(stages, tuple(missing.values()), n_untimed, n_tokens, source)

    durations = estimate()
    if not measure or not durations.missing:
        return durations
    step = max(1, len(data.pool) // N_SAMPLES)
    examples, instructions = data.pool[::step][:N_SAMPLES], data.instructions[:N_SAMPLES]
    measure_speeds(
        durations.missing, examples, instructions, n_tokens, store=store.folder, live=run.ctx
    )
    return estimate()


def find_rationale_length(teacher: TeacherOptions, ledger: Path) -> tuple[float, str | None]:
    """Return the expected tokens of a rationale, and what says so; None: it is assumed.

    Tokens of the teacher count as tokens of a student.
    """
    saved = average_answer_tokens(ledger, teacher.provider, teacher.model)
    if saved is not None:
        return saved, "the answers in the ledger"
    if teacher.expected_completion_tokens is not None:
        return fmean(teacher.expected_completion_tokens), "teacher.expected_completion_tokens"
    return min(DEFAULT_RATIONALE_TOKENS, teacher.max_tokens), None


class _StageRates:
    """Seconds per row of the finished stages of a store."""

    def __init__(self, store: Path) -> None:
        self._made: dict[tuple[str, str], list[tuple[Artifact, float]]] = defaultdict(list)
        for file in store.glob(f"*/{MANIFEST}"):
            stage, _, fingerprint = file.parent.name.rpartition("-")
            artifact = Artifact(stage, fingerprint, file.parent)
            try:
                seconds = _compute_row_seconds(artifact)
            except InputError:  # of another version of bridgekd
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
            return artifact.read_settings(PredictSettings).prompt_mode == settings.prompt_mode
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
