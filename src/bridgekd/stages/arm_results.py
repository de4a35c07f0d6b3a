"""Reads the predictions of one model as a result of its arm.

The one idea: seed, budget and cost come from the artifacts that the model was made from. So each
arm is charged for work that it shares with others as if it were alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridgekd.grading.answer_extraction import split_answer
from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.io.row_files import read_rows
from bridgekd.recipe import FrozenModel, Role
from bridgekd.records import Example, Prediction, Rationale, SampledAnswer
from bridgekd.stages.load_data import LoadPoolSettings
from bridgekd.stages.measure_memorization import MemorizationStats, measure_memorization
from bridgekd.stages.predict import PredictSettings
from bridgekd.stages.query_teacher import QueryTeacherSettings
from bridgekd.stages.run_context import StepChecker
from bridgekd.stages.sample_answers import SampleAnswersSettings, sample_answers
from bridgekd.stages.stats import CalibrationStats, PurchaseStats
from bridgekd.stats.answer_metrics import AnswerTraits
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.compute_metrics import ArmResult, TrainingSetStats
from bridgekd.stats.memorization_metrics import MemorizedCounts
from bridgekd.stats.pass_at_k import SampleCounts
from bridgekd.stats.repetition import is_repetitive
from bridgekd.throughput import WorkKind

_EVALUATION_STAGES = frozenset({"predict", "load_test"})  # not part of what a model cost to make


class ArmSettings(FrozenModel):
    """What metrics, reports and cards show of an arm; `role` is None for the teacher.

    Seed and budget are not here: they come from what the predictions were made from.
    """

    name: str
    title: str
    role: Role | None = None
    is_result: bool = False
    card_sentence: str = ""


@dataclass(frozen=True, slots=True)
class ArmReader:
    """Reads the arms of one comparison. A training set that arms share is read once.

    figures: what else was measured of the models, by other stages.
    """

    test: Mapping[str, Example]
    check: StepChecker | None
    figures: Sequence[Artifact] = ()
    training_sets: dict[str, TrainingSetStats] = field(default_factory=dict)

    def read_arm(self, arm: ArmSettings, predictions: Artifact) -> ArmResult:
        """Return the result of one model from its predictions of the test questions."""
        ancestors = list(find_ancestors(predictions).values())
        rows = read_rows(predictions.path / "predictions.parquet", Prediction)
        models = predictions.get_inputs("model")  # the teacher has none and writes rationales
        is_cot = not models or predictions.read_settings(PredictSettings).prompt_mode == "cot"
        paid = [a.read_stats(PurchaseStats) for a in ancestors if a.manifest.kind is WorkKind.PAID]
        training_set = self._read_training_set(models[0]) if arm.is_result else TrainingSetStats()
        seconds = sum(a.manifest.seconds for a in ancestors if a.stage not in _EVALUATION_STAGES)
        return ArmResult(
            arm=arm.name,
            title=arm.title,
            seed=find_seed(ancestors),
            budget=find_budget(ancestors),
            is_correct={r.id: r.correct for r in rows},
            words={r.id: len(split_answer(r.text)[0].split()) for r in rows},
            wrong_steps=self._compute_wrong_steps(rows) if is_cot else {},
            n_queries=sum(p.n_queries for p in paid),
            n_without_answer=sum(p.n_without_answer for p in paid),
            n_at_reserve=sum(p.n_at_reserve for p in paid),
            spend_usd=sum(p.spend_microusd for p in paid) / 1e6,
            seconds=round(seconds, 1),
            is_trained=arm.is_result,
            training_set=training_set,
            calibration=_collect_calibrations(ancestors),
            answers={
                r.id: AnswerTraits(r.n_tokens, r.is_cut_off, bool(r.answer), is_repetitive(r.text))
                for r in rows
            },
            samples=self._count_samples(predictions) if models else None,
            memorized=self._count_memorized(models[0]) if arm.is_result else None,
        )

    def _count_memorized(self, model: Artifact) -> MemorizedCounts | None:
        for artifact in self.figures:
            if artifact.stage == measure_memorization.name and artifact.get_input("model") == model:
                stats = artifact.read_stats(MemorizationStats)
                return MemorizedCounts(stats.n_rationales, stats.n_memorized, stats.n_base)
        return None

    def _count_samples(self, predictions: Artifact) -> SampleCounts | None:
        model = predictions.get_input("model")
        own = predictions.read_settings(PredictSettings)
        for artifact in self.figures:
            if artifact.stage == sample_answers.name and artifact.get_input("model") == model:
                settings = artifact.read_settings(SampleAnswersSettings)
                if (settings.role, settings.prompt_mode) == (own.role, own.prompt_mode):
                    rows = read_rows(artifact.path / "samples.parquet", SampledAnswer)
                    counts = dict.fromkeys((r.id for r in rows), 0)
                    counts.update(Counter(r.id for r in rows if r.correct))
                    return SampleCounts(settings.n_samples, settings.temperature, counts)
        return None

    def _read_training_set(self, model: Artifact) -> TrainingSetStats:
        sets = [
            self._read_rationales(a.path / "rationales.parquet", model.get_input("pool"))
            for a in model.get_inputs("rationales")
        ]
        return TrainingSetStats(
            [n for each in sets for n in each.words],
            [fraction for each in sets for fraction in each.wrong_steps],
        )

    def _read_rationales(self, file: Path, pool: Artifact) -> TrainingSetStats:
        name = str(file)
        if name not in self.training_sets:
            kept = [r for r in read_rows(file, Rationale) if r.kept]
            examples = index_by_id(read_pool(pool), (r.id for r in kept))
            fractions = (self._compute_wrong_fraction(examples[r.id], r.text) for r in kept)
            self.training_sets[name] = TrainingSetStats(
                [len(r.text.split()) for r in kept], [f for f in fractions if f is not None]
            )
        return self.training_sets[name]

    def _compute_wrong_steps(self, rows: Sequence[Prediction]) -> dict[str, float]:
        fractions = {r.id: self._compute_wrong_fraction(self.test[r.id], r.text) for r in rows}
        return {id: fraction for id, fraction in fractions.items() if fraction is not None}

    def _compute_wrong_fraction(self, example: Example, text: str) -> float | None:
        count = None if self.check is None else self.check(example.question, text)
        return count.n_wrong / count.n_steps if count and count.n_steps else None


def find_seed(ancestors: Iterable[Artifact]) -> int:
    """Return the run's seed: that of the validation split."""
    return next(a.read_settings(LoadPoolSettings).seed for a in ancestors if a.stage == "load_pool")


def find_budget(ancestors: Iterable[Artifact]) -> str:
    """Return the first limit of a purchase for training; empty if there is none."""
    for artifact in ancestors:
        if artifact.stage == "query_teacher":
            limits = artifact.read_settings(QueryTeacherSettings).budget
            if limits.queries is not None:
                return str(limits.queries)
            return f"{limits.tokens} tokens" if limits.usd is None else f"${limits.usd:g}"
    return ""


def _collect_calibrations(ancestors: Iterable[Artifact]) -> dict[str, tuple[Calibration, ...]]:
    """Return the calibrations by stage; a method may check several purchases."""
    by_stage: dict[str, tuple[Calibration, ...]] = {}
    for artifact in ancestors:
        if calibration := artifact.read_stats(CalibrationStats).calibration:
            by_stage[artifact.stage] = (*by_stage.get(artifact.stage, ()), calibration)
    return by_stage
