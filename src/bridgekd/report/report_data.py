"""Everything on the page of a report: typed figures and texts, gathered by gather.py and shown by
page.py. Accuracies and fractions are in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bridgekd.stats.metrics import ArmMetrics, Metrics
from bridgekd.stats.mixed_effects import Estimate


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One row of the result table. The highlighted arm is the one that the headline is about."""

    label: str
    title: str
    metrics: ArmMetrics
    is_highlighted: bool = False


@dataclass(frozen=True, slots=True)
class PurchaseSummary:
    """One purchase and what the check kept. `is_eval`: the teacher on test questions, outside the
    budget. `kept_usd` is what the answers of the kept rationales cost.
    """

    title: str
    n_queries: int
    spend_usd: float
    stop_reason: str
    n_kept: int = 0
    dropped: Mapping[str, int] | None = None  # reason -> rationales; None if nothing was checked
    kept_usd: float = 0.0
    is_eval: bool = False


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One question on the map of a pool. `rank` is its rank among the selected questions, from 0;
    None if it was not selected. `difficulty` is in [0, 1].
    """

    x: float
    y: float
    difficulty: float
    domain: str
    question: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """One selection on the first two principal components of the pool's embeddings.

    `selected` is in the order of the selection, `points` is a sample of the other questions.
    `explained_variance` has a fraction for each component; `n_fitted` questions were used for them.
    """

    title: str
    points: tuple[MapPoint, ...]
    selected: tuple[MapPoint, ...]
    explained_variance: tuple[float, float]
    n_fitted: int
    n_pool: int
    n_selected: int


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """One training. `losses` are (update, mean loss since the last entry), empty without a log;
    `validations` are (update, value): accuracies, or held-out losses if `judged_by_loss`.
    """

    title: str
    n_updates: int
    best_update: int  # the weights of this update were kept
    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...]
    judged_by_loss: bool = False
    is_first: bool = True  # of the first seed and budget


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """What one arm answered to one question."""

    title: str
    text: str
    is_correct: bool


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One test question and what each shown arm answered; the last answer is the leading arm's."""

    question: str
    gold: str
    domain: str
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True, slots=True)
class SampledPredictions:
    """Test questions side by side, and the rule that sampled them."""

    rule: str
    rows: tuple[PredictionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class DroppedRationales:
    """The rationales that a stage dropped for one reason, and the first of them."""

    stage: str
    reason: str
    n: int
    n_total: int  # rationales of the stage
    question: str
    text: str
    detail: str  # the full reason for this one


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """How well the confidences of one filter agree with the gold answers."""

    title: str
    n: int
    ece: float
    auroc: float | None


@dataclass(frozen=True, slots=True)
class OverlapSummary:
    """How many test questions share words with one kind of text that was trained on."""

    source: str
    n_texts: int
    n_shared: int  # test questions that share an n-gram
    n_mostly_seen: int
    n_fully_seen: int  # every word is in a shared n-gram


@dataclass(frozen=True, slots=True)
class OverlapAccuracy:
    """The leading arm's accuracy on the test questions with one amount of overlap."""

    group: str
    n_test: int
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Contamination:
    """How much of the test questions was trained on. `by_overlap` is about the arm `title`."""

    sentence: str
    n_test: int = 0
    rows: tuple[OverlapSummary, ...] = ()
    title: str = ""
    by_overlap: tuple[OverlapAccuracy, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page. With several seeds or budgets (`has_variants`) details are about the
    first.
    """

    name: str
    headline: str
    metrics: Metrics
    arms: tuple[ArmRow, ...]
    contamination: Contamination
    recipe_yaml: str
    command: str
    libraries: str
    titles: Mapping[str, str]  # by label
    examples: SampledPredictions = SampledPredictions("")
    purchases: tuple[PurchaseSummary, ...] = ()
    embedding_maps: tuple[EmbeddingMap, ...] = ()
    trainings: tuple[TrainingSummary, ...] = ()
    dropped: tuple[DroppedRationales, ...] = ()
    calibrations: tuple[CalibrationRow, ...] = ()
    has_variants: bool = False
