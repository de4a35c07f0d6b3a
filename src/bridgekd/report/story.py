"""What a report tells: plain numbers and texts, gathered elsewhere, shown by page.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One line of the result table."""

    name: str
    title: str
    accuracy: float
    low: float
    high: float
    n_test: int
    n_queries: float  # means over seeds, where there are several
    spend_usd: float
    seconds: float
    by_domain: dict[str, tuple[float, float, float]]  # accuracy, low, high
    n_seeds: int = 1


@dataclass(frozen=True, slots=True)
class Against:
    """A trained student less direct distillation at the same budget; p after Holm's correction."""

    title: str
    reference: str
    difference: float
    low: float
    high: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class Purchase:
    """One buying: for which arms, how much, and what came of it."""

    title: str
    n_queries: int
    spend_usd: float
    ended_by: str
    n_kept: int
    dropped: dict[str, int]  # reason -> rows
    bought_by_domain: dict[str, tuple[int, int]]  # domain -> (bought, in the pool)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One test question and what each arm made of it."""

    question: str
    gold: str
    domain: str
    answers: tuple[tuple[str, str, bool], ...]  # arm's title, text, correct


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the run: its folder, its seconds and what it says of itself."""

    stage: str
    folder: str
    seconds: float
    facts: str


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


@dataclass(frozen=True, slots=True)
class Story:
    """Everything on the page, in its order."""

    name: str
    headline: str
    arms: tuple[ArmRow, ...]
    pairs: tuple[tuple[str, float, float, int], ...]  # "a - b", difference, p, n
    purchases: tuple[Purchase, ...]
    examples: tuple[SideBySide, ...]
    stages: tuple[StageRow, ...]
    contamination: str
    recipe_yaml: str
    libraries: str
    versus: tuple[Against, ...] = ()
    reliabilities: tuple[Reliability, ...] = ()
    maps: tuple[PoolMap, ...] = ()

    @property
    def domains(self) -> list[str]:
        """Every domain that some arm was asked about."""
        return sorted({domain for arm in self.arms for domain in arm.by_domain})
