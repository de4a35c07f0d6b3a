"""Estimate the duration of the local work of a plan. The teacher's time is not included.

The one idea: only measured speeds count. A stage takes as long per row as an earlier stage of the
store with the same name and model. Without one, it uses the speeds that `plan --time` measured on
this machine. Without either, its duration is unknown, and the estimate lists the missing speeds.
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
    estimate_longest,
    estimate_seconds,
    make_key,
    measure_speeds,
    read_speeds,
)
from bridgekd.plans.stage_work import PlannedData, WorkCounter, Workload
from bridgekd.recipe import TeacherOptions
from bridgekd.runs.run import Run
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.score_pool import ScorePoolSettings
from bridgekd.stages.stats import GenerationStats, ScoredStats, TrainStats
from bridgekd.stages.train import TrainSettings
from bridgekd.throughput import WorkKind

ACCURACY = 1.5  # the duration is within this factor of the estimate
DEFAULT_RATIONALE_TOKENS = 150
CALIBRATION_S = 15.0  # approximate, to measure one model and type of work


@dataclass(frozen=True, slots=True)
class StageDuration:
    """The seconds of one stage. `is_measured`: by earlier stages, not by `plan --time`."""

    kind: WorkKind
    seconds: float
    is_measured: bool


@dataclass(frozen=True, slots=True)
class DurationEstimate:
    """The durations of the stages that are still to run, by the name of their folder.

    missing: one workload for each speed that is not measured. n_untimed: stages that use a server
    or an embedding model; they are not in `stages`. rationale_tokens: the expected length of a
    rationale. rationale_source: the source of that length; None if it is assumed.
    """

    stages: Mapping[str, StageDuration]
    missing: tuple[Workload, ...]
    n_untimed: int
    rationale_tokens: float
    rationale_source: str | None

    @property
    def by_kind(self) -> dict[WorkKind, float]:
        """Seconds by type of work."""
        kinds: dict[WorkKind, float] = defaultdict(float)
        for stage in self.stages.values():
            kinds[stage.kind] += stage.seconds
        return dict(kinds)

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages.values())


def estimate_durations(
    run: Run, store: PlanStore, data: PlannedData, *, measure: bool = False
) -> DurationEstimate | None:
    """Return the durations of the stages that are still to run; None if there are none.

    With `measure` the missing speeds are measured first, which loads the models.
    """
    pending = [planned for planned in store.planned.values() if not planned.artifact.done]
    if not pending:
        return None
    n_tokens, source = find_rationale_length(run.recipe.teacher, run.ctx.ledger)
    longest_rationale = n_tokens * estimate_longest(len(data.pool))
    counter = WorkCounter(store.planned, data, run.assistant, longest_rationale)
    workloads = [(planned, work) for planned in pending if (work := counter.count(planned))]

    def estimate() -> DurationEstimate:
        rates, speeds = _StageRates(store.folder), read_speeds(store.folder)
        stages: dict[str, StageDuration] = {}
        missing: dict[SpeedKey, Workload] = {}
        n_untimed = 0
        for planned, work in workloads:
            folder, first = planned.artifact.path.name, work[0]
            by_key = [(make_key(w, run.ctx), w) for w in work]
            unmeasured = {key: w for key, w in by_key if key not in speeds}
            if (row_s := rates.get(planned, first.base)) is not None:
                stages[folder] = StageDuration(first.kind, row_s * first.n_rows, True)
            elif not all(w.is_timed for w in work):
                n_untimed += 1
            elif unmeasured:
                missing |= unmeasured
            else:
                seconds = sum(estimate_seconds(w, speeds[key], n_tokens) for key, w in by_key)
                seconds += speeds[by_key[0][0]].load_s
                stages[folder] = StageDuration(first.kind, seconds, False)
        return DurationEstimate(stages, tuple(missing.values()), n_untimed, n_tokens, source)

    durations = estimate()
    if not measure or not durations.missing:
        return durations
    step = max(1, len(data.pool) // N_SAMPLES)
    examples, instructions = data.pool[::step][:N_SAMPLES], data.instructions[:N_SAMPLES]
    measure_speeds(
        durations.missing, examples, instructions, n_tokens, store=store.folder, ctx=run.ctx
    )
    return estimate()


def find_rationale_length(teacher: TeacherOptions, ledger: Path) -> tuple[float, str | None]:
    """Return the expected tokens of a rationale, and their source; None if they are assumed.

    A token of the teacher counts as a token of the student.
    """
    n_tokens = average_answer_tokens(ledger, teacher.provider, teacher.model)
    if n_tokens is not None:
        return n_tokens, "the answers in the ledger"
    if teacher.expected_completion_tokens is not None:
        return fmean(teacher.expected_completion_tokens), "teacher.expected_completion_tokens"
    return min(DEFAULT_RATIONALE_TOKENS, teacher.max_tokens), None


class _StageRates:
    """Seconds per row of the finished stages of a store."""

    def __init__(self, store: Path) -> None:
        self._finished: dict[tuple[str, str], list[tuple[Artifact, float]]] = defaultdict(list)
        for file in store.glob(f"*/{MANIFEST}"):
            stage, _, fingerprint = file.parent.name.rpartition("-")
            artifact = Artifact(stage, fingerprint, file.parent)
            try:
                seconds = _compute_row_seconds(artifact)
            except InputError:  # made by another version of bridgekd
                continue
            if seconds is not None:
                self._finished[stage, _find_base(artifact).fingerprint].append((artifact, seconds))

    def get(self, planned: Planned, base: Artifact) -> float | None:
        """Return the median over stages with this name, model and similar settings, or None."""
        seconds = [
            row_s
            for artifact, row_s in self._finished[planned.stage.name, base.fingerprint]
            if _is_similar(artifact, planned.settings)
        ]
        return median(seconds) if seconds else None


def _is_similar(artifact: Artifact, settings: BaseModel) -> bool:
    """Return whether a row of this stage takes as long as with these settings."""
    match settings:
        case PredictSettings():
            return artifact.read_settings(type(settings)).prompt_mode == settings.prompt_mode
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
    """Return the seconds per row of a finished stage; None without local work or if interrupted."""
    manifest = artifact.manifest
    if manifest.kind is WorkKind.TRAINING:
        stats = artifact.read_stats(TrainStats)
        n_rows = stats.n_updates * artifact.read_settings(TrainSettings).train.batch_size
        if artifact.get_inputs("wrong"):
            n_rows *= 2
        return None if stats.resumed_at else manifest.seconds / n_rows
    if manifest.kind is WorkKind.SCORING and "model" in manifest.inputs:
        return manifest.seconds / artifact.read_stats(ScoredStats).n_scored
    speed = artifact.read_stats(GenerationStats).generation
    if manifest.kind is not WorkKind.GENERATION or speed is None:
        return None
    return speed.seconds / speed.n_texts
