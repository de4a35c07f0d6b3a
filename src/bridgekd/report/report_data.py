"""The data of a report: typed figures and texts. `gather.py` collects them, `page.py` renders them.

Accuracies, fractions and difficulties are in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bridgekd.report.tables import format_percent, to_single_line
from bridgekd.selection.representativeness import SelectionCheck
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.metrics import ArmMetrics, Metrics
from bridgekd.stats.mixed_effects import Estimate
from bridgekd.throughput import GenerationSpeed


@dataclass(frozen=True, slots=True)
class PurchaseSummary:
    """A purchase and how many of its rationales the check kept.

    `dropped` has the number of dropped rationales by reason; None if no rationale was checked.
    `kept_usd` is the cost of the answers whose rationale was kept. `is_eval`: the purchase
    evaluates the teacher on test questions and is outside the budget. `n_without_answer` queries
    were refused or failed; `n_at_reserve` had no usable token counts.
    """

    title: str
    n_queries: int
    spend_usd: float
    stop_reason: str
    n_kept: int = 0
    dropped: Mapping[str, int] | None = None
    kept_usd: float = 0.0
    is_eval: bool = False
    n_without_answer: int = 0
    n_at_reserve: int = 0

    @property
    def result(self) -> str:
        """The spend, and what happened to the rationales."""
        n_dropped = sum((self.dropped or {}).values())
        result = "evaluation" if self.is_eval else f"{self.n_kept} kept, {n_dropped} dropped"
        return f"${self.spend_usd:.4f}, {result}"


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A question on the map of a pool. `rank` counts the selected questions from 0; None if the
    question was not selected.
    """

    x: float
    y: float
    difficulty: float
    domain: str
    question: str
    rank: int | None = None

    @property
    def description(self) -> str:
        """The text of the tooltip."""
        rank = "Not selected" if self.rank is None else f"Selected as number {self.rank + 1}"
        domain = f", {to_single_line(self.domain)}" if self.domain else ""
        question = to_single_line(self.question)
        return f"{rank}, difficulty {self.difficulty:.2f}{domain}: {question}"


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """A selection on the first two principal components of the pool's embeddings.

    `selected` is in the order of the selection. `points` is a sample of the other questions.
    `explained_variance` has a fraction for each component. `n_fitted` questions were used to fit
    the components.
    """

    title: str
    points: tuple[MapPoint, ...]
    selected: tuple[MapPoint, ...]
    explained_variance: tuple[float, float]
    n_fitted: int
    n_pool: int
    n_selected: int

    @property
    def caption(self) -> str:
        """Sentences about the axes and the shown questions."""
        first, second = self.explained_variance
        n_points, n_shown = len(self.points), len(self.selected)
        fitted = f", fitted on {self.n_fitted:,} questions" if self.n_fitted < self.n_pool else ""
        return (
            f"The axes are the first two principal components of the question embeddings. They "
            f"explain {first + second:.1%} of the variance ({first:.1%} and {second:.1%}{fitted}), "
            f"so near points are only roughly similar. The map shows {n_points + n_shown:,} of "
            f"{self.n_pool:,} questions: {n_shown:,} of {self.n_selected:,} selected questions and "
            f"{n_points:,} of {self.n_pool - self.n_selected:,} others."
        ).replace("%", " %")


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """A training. `losses` are (update, mean loss since the last entry), empty without a log.

    `validations` are (update, accuracy), or (update, evaluation loss) if `has_eval_loss`. The
    weights of update `best_update` were kept. `is_first`: it belongs to the first seed and budget.
    """

    title: str
    n_updates: int
    best_update: int
    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...]
    has_eval_loss: bool = False
    is_first: bool = True

    @property
    def measure(self) -> str:
        """The unit of `validations` on the plot."""
        return "evaluation loss" if self.has_eval_loss else "validation accuracy in %"

    @property
    def description(self) -> str:
        """The values of the plot as a sentence."""
        loss = "no loss log"
        if self.losses:
            (first, high), (last, low) = self.losses[0], self.losses[-1]
            loss = f"loss {high:.3f} at update {first} and {low:.3f} at update {last}"
        if not self.validations:
            return f"{self.title}: {loss}; no validation split."
        format_value = "{:.3f}".format if self.has_eval_loss else format_percent
        values = ", ".join(format_value(value) for _, value in self.validations)
        return (
            f"{self.title}: {loss}; {self.measure.removesuffix(' in %')} {values}; "
            f"weights of update {self.best_update} kept."
        )


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """The answer of one arm to one question."""

    title: str
    text: str
    is_correct: bool


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """A test question and the answers of the shown arms; the leading arm is the last one."""

    question: str
    gold: str
    domain: str
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True, slots=True)
class SampledPredictions:
    """Sampled test questions, and a sentence that describes how they were sampled."""

    rule: str
    rows: tuple[PredictionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class DroppedRationales:
    """The `n` of `n_total` rationales that a stage dropped for one reason.

    `question`, `text` and `detail` (the full reason) are those of the first one.
    """

    stage: str
    reason: str
    n: int
    n_total: int
    question: str
    text: str
    detail: str


@dataclass(frozen=True, slots=True)
class OverlapSummary:
    """The number of test questions that share words with one source of training texts.

    `n_shared` questions share an n-gram, `n_mostly_seen` share most of their words, and every word
    of `n_fully_seen` questions is in a shared n-gram.
    """

    source: str
    n_texts: int
    n_shared: int
    n_mostly_seen: int
    n_fully_seen: int


@dataclass(frozen=True, slots=True)
class OverlapAccuracy:
    """The leading arm's accuracy on the test questions with one amount of overlap."""

    group: str
    n_test: int
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Contamination:
    """The overlap of the test questions with the training texts. `by_overlap` describes the arm
    `title`.
    """

    sentence: str
    n_test: int = 0
    rows: tuple[OverlapSummary, ...] = ()
    title: str = ""
    by_overlap: tuple[OverlapAccuracy, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    `lead` is the name of the arm that the headline describes; None if no student was trained. With
    several seeds or budgets (`has_variants`), the details describe the first ones.
    """

    name: str
    headline: str
    metrics: Metrics
    lead: str | None
    contamination: Contamination
    recipe_yaml: str
    command: str
    libraries: str
    examples: SampledPredictions = SampledPredictions("")
    purchases: tuple[PurchaseSummary, ...] = ()
    embedding_maps: tuple[EmbeddingMap, ...] = ()
    selections: tuple[tuple[str, SelectionCheck], ...] = ()
    trainings: tuple[TrainingSummary, ...] = ()
    dropped: tuple[DroppedRationales, ...] = ()
    calibrations: tuple[tuple[str, Calibration], ...] = ()
    cut_off: tuple[tuple[str, GenerationSpeed], ...] = ()
    has_variants: bool = False

    @property
    def arms(self) -> tuple[ArmMetrics, ...]:
        """Every arm at every budget, in the order of the run."""
        return tuple(self.metrics.arms.values())

    @property
    def series(self) -> tuple[tuple[ArmMetrics, ...], ...]:
        """The budgets of each arm, sorted by spend."""
        names = dict.fromkeys(arm.arm for arm in self.arms)
        by_spend = sorted(self.arms, key=lambda arm: arm.spend_usd)
        return tuple(tuple(arm for arm in by_spend if arm.arm == name) for name in names)
