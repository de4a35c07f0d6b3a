"""Reads a model's answers as a cell of a comparison. Which seed, which budget and what it cost are
read off what the model was made from: shared work is charged to each arm as if it had been alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bridgekd.grading.answer_extraction import split_answer
from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example, Prediction, Rationale
from bridgekd.stages.load_data import LoadPoolSettings
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.query_teacher import QueryTeacherSettings
from bridgekd.stages.run_context import StepChecker
from bridgekd.stages.stats import CalibrationStats, PurchaseStats
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.compute_metrics import ArmResult, TrainingSetStats
from bridgekd.throughput import WorkKind

_EVALUATION_STAGES = frozenset({"predict", "load_test"})  # not part of what a model cost to make


if TYPE_CHECKING:
    from bridgekd.stages.evaluate import ArmSettings


@dataclass(frozen=True, slots=True)
class ArmReader:
    """What the cells of one comparison share; lessons of several arms are read once."""

    test: Mapping[str, Example]
    check: StepChecker | None
    known: dict[str, TrainingSetStats] = field(default_factory=dict)

    def read_arm(self, arm: "ArmSettings", predictions: Artifact) -> ArmResult:
        """An arm's model, by its answers to the test questions."""
        behind = find_ancestors(predictions)
        rows = read_rows(predictions.path / "predictions.parquet", Prediction)
        models = predictions.get_inputs("model")  # none for the teacher, who explains
        explained = not models or predictions.read_settings(PredictSettings).prompt_mode == "cot"
        n_queries, spend_usd, seconds = sum_cost(behind.values())
        return ArmResult(
            arm=arm.name,
            title=arm.title,
            seed=find_seed(behind.values()),
            budget=find_budget(behind.values()),
            is_correct={r.id: r.correct for r in rows},
            words={r.id: len(split_answer(r.text)[0].split()) for r in rows},
            wrong_steps=self._compute_wrong_steps(rows) if explained else {},
            n_queries=n_queries,
            spend_usd=spend_usd,
            seconds=seconds,
            is_trained=arm.is_result,
            training_set=self._read_training_set(models[0])
            if arm.is_result
            else TrainingSetStats(),
            calibration=_calibrations(behind),
        )

    def _compute_wrong_steps(self, rows: Sequence[Prediction]) -> dict[str, float]:
        shares = {
            r.id: _compute_wrong_fraction(self.check, self.test[r.id].question, r.text)
            for r in rows
        }
        return {id: share for id, share in shares.items() if share is not None}

    def _read_training_set(self, model: Artifact) -> TrainingSetStats:
        found = [
            self._read_rationales(a.path / "rationales.parquet", model.get_input("pool"))
            for a in model.get_inputs("rationales")
        ]
        return TrainingSetStats(
            [n for lessons in found for n in lessons.words],
            [share for lessons in found for share in lessons.wrong_steps],
        )

    def _read_rationales(self, file: Path, pool: Artifact) -> TrainingSetStats:
        name = str(file)
        if name not in self.known:
            kept = [r for r in read_rows(file, Rationale) if r.kept]
            examples = index_by_id(read_pool(pool), (r.id for r in kept))
            shares = [
                _compute_wrong_fraction(self.check, examples[r.id].question, r.text) for r in kept
            ]
            self.known[name] = TrainingSetStats(
                [len(r.text.split()) for r in kept], [s for s in shares if s is not None]
            )
        return self.known[name]


def sum_cost(behind: Iterable[Artifact]) -> tuple[int, float, float]:
    """(queries, dollars, seconds) of all stages among `behind`, an artifact's ancestors."""
    made = list(behind)
    paid = [a.read_stats(PurchaseStats) for a in made if a.manifest.kind is WorkKind.PAID]
    seconds = sum(a.manifest.seconds for a in made if a.stage not in _EVALUATION_STAGES)
    spent = sum(p.spend_microusd for p in paid) / 1e6
    return sum(p.n_queries for p in paid), spent, round(seconds, 1)


def _compute_wrong_fraction(check: StepChecker | None, question: str, text: str) -> float | None:
    counted = None if check is None else check(question, text)
    return counted.n_wrong / counted.n_steps if counted is not None and counted.n_steps else None


def _calibrations(behind: Mapping[str, Artifact]) -> dict[str, tuple[Calibration, ...]]:
    """By stage, what each that weighed rationales found; a method may check several purchases."""
    found: dict[str, tuple[Calibration, ...]] = {}
    for artifact in behind.values():
        if told := artifact.read_stats(CalibrationStats).calibration:
            found[artifact.stage] = (*found.get(artifact.stage, ()), told)
    return found


def find_seed(behind: Iterable[Artifact]) -> int:
    """That of the validation split, which is the run's."""
    return next(a.read_settings(LoadPoolSettings).seed for a in behind if a.stage == "load_pool")


def find_budget(behind: Iterable[Artifact]) -> str:
    """The first limit of what was bought to train on; empty where nothing was."""
    for artifact in behind:
        if artifact.stage == "query_teacher":
            limits = artifact.read_settings(QueryTeacherSettings).budget
            if limits.queries is not None:
                return str(limits.queries)
            return f"{limits.tokens} tokens" if limits.usd is None else f"${limits.usd:g}"
    return ""
