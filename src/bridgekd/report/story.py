"""What a report tells of its arms: plain numbers and texts, gathered elsewhere, shown by page.py.
What stands behind the figures is in evidence.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridgekd.core.crossed import Estimate
from bridgekd.report.evidence import (
    Contamination,
    Dropped,
    PoolMap,
    Purchase,
    Reliability,
    Shown,
    StageRow,
    Training,
)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How an arm reasons on the test questions and what it learnt from: words a rationale, and the
    share of steps that are wrong or missing where they were checked.
    """

    words: Estimate
    wrong_steps: Estimate | None = None
    learnt_words: Estimate | None = None
    learnt_wrong: Estimate | None = None
    n_learnt: tuple[int, ...] = ()  # kept rationales, of every seed


@dataclass(frozen=True, slots=True)
class Gain:
    """What a trained student gained over the one it was before, in points, what a point took, and
    which share of the gap to the teacher it is; None where that cannot be told.
    """

    over: str
    points: Estimate
    verdict: str
    usd: Estimate | None
    queries: Estimate | None
    gap: Estimate | None


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One run of an arm, with Wilson's interval."""

    seed: int
    accuracy: Estimate
    n_queries: int
    spend_usd: float


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
    by_domain: Mapping[str, Estimate]
    reasoning: Reasoning
    n_seeds: int = 1
    by_steps: Mapping[str, Estimate] = field(default_factory=dict)  # by group, as "3" or "4 to 6"
    gain: Gain | None = None
    by_seed: tuple[SeedRow, ...] = ()


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
class Pair:
    """Two arms on the same questions; p is not corrected."""

    title: str  # the first minus the second
    difference: float
    p: float
    n_test: int


@dataclass(frozen=True, slots=True)
class Story:
    """Everything on the page."""

    name: str
    headline: str
    arms: tuple[ArmRow, ...]
    chance: tuple[float, str]  # what can be had without reading the questions, and how
    pairs: tuple[Pair, ...]
    purchases: tuple[Purchase, ...]
    examples: Shown
    stages: tuple[StageRow, ...]
    contamination: Contamination
    recipe_yaml: str
    command: str  # that makes it again
    libraries: str
    versus: tuple[Against, ...] = ()
    reliabilities: tuple[Reliability, ...] = ()
    maps: tuple[PoolMap, ...] = ()
    trainings: tuple[Training, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    n_in_domain: Mapping[str, int] = field(default_factory=dict)  # test questions
    n_with_steps: Mapping[str, int] = field(default_factory=dict)
    several: bool = False  # seeds or budgets; details are then of the first
    steps_told_by: str = ""  # "checker", or the arm whose rationales were counted
    tests: str = ""  # by which `versus` was tested
