"""What stands behind a report's figures: purchases, choices, trainings, what was dropped, what was
seen before.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bridgekd.core.crossed import Estimate


@dataclass(frozen=True, slots=True)
class Purchase:
    """One buying: for which arms, how much, and what came of it."""

    title: str
    n_queries: int
    spend_usd: float
    ended_by: str
    n_kept: int
    dropped: Mapping[str, int]  # reason -> rows
    bought_by_domain: Mapping[str, tuple[int, int]]  # domain -> (bought, in the pool)
    measures: bool = False  # the teacher on test questions, apart from the budget
    usd_kept: float = 0.0  # what the kept rationales' own answers cost


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One test question and what each arm made of it."""

    question: str
    gold: str
    domain: str
    answers: tuple[tuple[str, str, bool], ...]  # arm's title, text, correct


@dataclass(frozen=True, slots=True)
class Shown:
    """Test questions side by side, and the rule by which they were picked."""

    rule: str
    rows: tuple[SideBySide, ...] = ()


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the run: its folder, its seconds and what it says of itself."""

    stage: str
    folder: str
    seconds: float
    facts: str


@dataclass(frozen=True, slots=True)
class Training:
    """One training. `losses` are (update, mean loss since the last one), empty where no log was
    kept; `validations` (update, value) are accuracies in [0, 1], or held-out losses.
    """

    title: str
    folder: str
    n_rows: int
    n_too_long: int
    n_updates: int
    best_update: int  # whose weights were kept
    seconds: float
    losses: tuple[tuple[int, float], ...]
    validations: tuple[tuple[int, float], ...]
    by_loss: bool = False  # what `validations` are
    first: bool = True  # of the first seed and budget


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rationales that a stage dropped for one reason, and the first of them."""

    stage: str
    reason: str
    n: int
    n_all: int  # that the stage had
    question: str
    text: str
    said: str  # the reason in full


@dataclass(frozen=True, slots=True)
class Compared:
    """Test questions against one kind of text that was trained on."""

    source: str
    n_texts: int
    n_shared: int  # test questions that share a run of words
    n_mostly: int  # that are all but known
    n_whole: int  # of which every word lies in such a run


@dataclass(frozen=True, slots=True)
class Likeness:
    """One test question, and the text that holds most of it."""

    source: str
    share: float
    question: str
    text: str


@dataclass(frozen=True, slots=True)
class Contamination:
    """What of the test questions was trained on. `by_overlap` are (which questions, how many, the
    accuracy on them) of the arm `title`.
    """

    sentence: str
    n_test: int = 0
    rows: tuple[Compared, ...] = ()
    worst: tuple[Likeness, ...] = ()
    title: str = ""
    by_overlap: tuple[tuple[str, int, Estimate], ...] = ()


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One question on a map of the pool; `rank` is its place among the picks from 0, None for
    others. `difficulty` is in [0, 1].
    """

    x: float
    y: float
    difficulty: float
    domain: str
    question: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class PickReason:
    """Why a question was picked: its score, the score's two parts, and the earlier pick that it is
    nearest to (a question, empty for none).
    """

    rank: int
    score: float
    difficulty: float
    distance: float | None
    nearest: str
    question: str


@dataclass(frozen=True, slots=True)
class PoolMap:
    """One choice on the two main axes of the pool's embeddings; `shares` of variance in [0, 1].

    `picks` are in the order of choosing. `n_fitted` questions gave the axes.
    """

    title: str
    rule: str  # how score follows from its parts; empty where it is not their sum
    points: tuple[MapPoint, ...]  # a draw from what was not chosen
    picks: tuple[MapPoint, ...]
    shares: tuple[float, float]
    n_fitted: int
    n_pool: int
    n_chosen: int
    reasons: tuple[PickReason, ...]  # of the first picks; none where nothing was scored


@dataclass(frozen=True, slots=True)
class Reliability:
    """A confidence held against gold answers: `bins` are (mean confidence, share right, rows)."""

    title: str
    n: int
    ece: float
    auroc: float | None
    bins: tuple[tuple[float, float, int], ...]
