"""Whether an assistant pays off, told from a cheap pilot: what each arm would reach at the budget,
and how sure that is.

The one idea: all that the pilot measured, on the same questions, is one normal likelihood, on a
scale where a share's variance is the same everywhere and with the covariance of paired answers;
learning curves and the step from an assistant to its student are one model, whose posterior is
drawn (`core/particles.py`) and asked about the budget. What is told of an arm is a run of it: how
runs differ is in the interval.

Priors (standard deviations in logits; docs/log.md says what was changed when): models that are only
measured 2; curves as in `core/curves.py`; runs of the same method 0.15 exp(0.7 z); a student is
-0.3 +- 0.8 from the assistant that taught it, and follows its gains with a slope of exp(0.35 z); it
gains 0.25 |z| from e times as many rationales, 0.15 |z| from e times as many answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from bridgekd.core.curves import CURVE, curve
from bridgekd.core.particles import posterior

Role = Literal["base", "instructed", "direct", "warm", "apprentice", "tutored", "answers_only"]
Settled = Literal["assistant", "no assistant", "cannot tell"]

ARMS = ("tutored", "direct", "answers_only", "instructed", "base")
_LEVELS = ("base", "instructed", "warm", "answers_only")  # measured as they are
_ONE_EACH = ("spread", *_LEVELS, "shift", "slope", "growth", "answers_growth")
_RUNS = ("direct", "apprentice", "tutored", "answers_only")  # made anew by a run, and then differ
_SHRINK = 0.9  # of the correlations between models that the pilot shows


@dataclass(frozen=True, slots=True)
class Point:
    """A model of the pilot. `size`: the teacher's rationales that a `direct` student or an
    `apprentice` learnt from, the assistant's that a `tutored` student did, gold answers of
    `answers_only`; the others learnt from none. `tutor`: the place of the apprentice that taught
    it.
    """

    role: Role
    size: int = 0
    tutor: int = -1


@dataclass(frozen=True, slots=True)
class Told:
    """What is expected of something: its mean and the interval that holds it 95 times in 100."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Advice:
    """Accuracies of one run of each arm; `best` is each arm's probability of being the best.

    `gain` is that of an assistant over direct distillation, `p_gain` the probability that there is
    one, in a run, `p_on_average` in the mean of many. `p_if_runs_were_alike`: the probability that
    the arm with an assistant is best in the mean of many runs, which a larger pilot makes surer,
    while nothing makes single runs alike.
    """

    verdict: Settled
    leader: str
    arms: dict[str, Told]
    best: dict[str, float]
    gain: Told
    p_gain: float
    p_on_average: float
    p_if_runs_were_alike: float


@dataclass(frozen=True, slots=True)
class Runs:
    """Drawn accuracies by arm, [draws] each: of single runs, and in the mean of many."""

    single: dict[str, np.ndarray]
    average: dict[str, np.ndarray]


class Model:
    """The logits of the pilot's models as a function of `z` [draws, dimensions], standard normal a
    priori; `budget` counts the teacher's rationales, `n_pool` rows that a student will learn from.
    """

    def __init__(self, points: Sequence[Point], *, budget: int, n_pool: int) -> None:
        self.points, self.budget, self.n_pool = points, budget, n_pool
        self.tutors = sorted({p.tutor for p in points if p.tutor >= 0})
        names = [*_ONE_EACH, *(f"direct {c}" for c in CURVE), *(f"apprentice {c}" for c in CURVE)]
        names += [f"tutor {place}" for place in self.tutors]
        self._column = {name: i for i, name in enumerate(names)}
        self.n_dimensions = len(names)
        # A tutor's own luck is a dimension of z, as its student follows it; others' is integrated.
        self.lucky = np.array(
            [p.role in _RUNS and i not in self.tutors for i, p in enumerate(points)], dtype=float
        )

    def spread(self, z: np.ndarray) -> np.ndarray:
        """How far runs of one method lie apart, in logits, [draws]."""
        return np.asarray(0.15 * np.exp(0.7 * self._z(z, "spread")))

    def level(self, z: np.ndarray, role: str) -> np.ndarray:
        """The logit of a model that is measured as it is, [draws]."""
        return 2.0 * self._z(z, role)

    def learnt(self, z: np.ndarray, role: str, sizes: Sequence[int]) -> np.ndarray:
        """Logits of the curve of `direct` or `apprentice`, [draws, sizes]."""
        start = self._column[f"{role} {CURVE[0]}"]
        before = self.level(z, "instructed" if role == "direct" else "warm")
        return curve(z[:, start : start + len(CURVE)], before, np.array(sizes), far=self.budget)

    def taught(self, z: np.ndarray, assistant: np.ndarray, size: int) -> np.ndarray:
        """The logit of a student that an assistant of this logit gave `size` rationales."""
        slope = np.exp(0.35 * self._z(z, "slope"))
        shift = -0.3 + 0.8 * self._z(z, "shift")
        return np.asarray(shift + slope * assistant + self._grown(z, "growth", 0.25, size))

    def answered(self, z: np.ndarray, size: int) -> np.ndarray:
        """The logit of a student after so many gold answers."""
        grown = self._grown(z, "answers_growth", 0.15, size)
        return np.asarray(self.level(z, "answers_only") + grown)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """[draws, points]"""
        told = np.empty((len(z), len(self.points)))
        for role in ("direct", "apprentice"):
            places = [i for i, p in enumerate(self.points) if p.role == role]
            told[:, places] = self.learnt(z, role, [self.points[i].size for i in places])
        for place in self.tutors:
            told[:, place] += self.spread(z) * self._z(z, f"tutor {place}")
        for i, point in enumerate(self.points):
            if point.role == "tutored":
                told[:, i] = self.taught(z, told[:, point.tutor], point.size)
            elif point.role == "answers_only":
                told[:, i] = self.answered(z, point.size)
            elif point.role in _LEVELS:
                told[:, i] = self.level(z, point.role)
        return told

    def _z(self, z: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(z[:, self._column[name]])

    def _grown(self, z: np.ndarray, name: str, unit: float, size: int) -> np.ndarray:
        """What `size` rows give more, or less, than the whole pool does."""
        return np.asarray(unit * np.abs(self._z(z, name)) * np.log(size / self.n_pool))


class Likelihood:
    """log p(right | z) of the pilot's answers, up to a constant: normal in arcsines of roots
    (Anscombe 1948: variance 1 / (4 n + 2) wherever a share lies), with the paired answers'
    correlations and, where a run's luck is in it, the spread between runs.
    """

    def __init__(self, model: Model, right: np.ndarray) -> None:
        n, k = right.shape[1], right.sum(axis=1)
        share = (k + 0.5) / (n + 1)
        root = np.linalg.inv(np.linalg.cholesky(_correlations(right) / (4 * n + 2)))
        luck = model.lucky * share * (1 - share) / 4  # a logit's unit of luck on this scale
        self._lucks, turn = np.linalg.eigh(root @ np.diag(luck) @ root.T)
        self._turn, self._model = turn.T @ root, model
        self._told = np.arcsin(np.sqrt((k + 3 / 8) / (n + 3 / 4)))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        rest = (self._told - np.arcsin(np.sqrt(expit(self._model(z))))) @ self._turn.T
        variance = 1 + self._model.spread(z)[:, None] ** 2 * np.maximum(self._lucks, 0.0)
        return np.asarray(-0.5 * (rest**2 / variance + np.log(variance)).sum(axis=1))


def _correlations(right: np.ndarray) -> np.ndarray:
    """Between models over questions, shrunk so that the matrix can be turned over."""
    values = right - right.mean(axis=1, keepdims=True)
    size = np.sqrt((values**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        told = np.nan_to_num(values @ values.T / np.outer(size, size))
    told *= _SHRINK
    np.fill_diagonal(told, 1.0)
    return np.asarray(told)


def runs_at(
    points: Sequence[Point],
    right: np.ndarray,
    *,
    budget: int,
    n_pool: int,
    seed: int = 0,
    n_draws: int = 2000,
) -> Runs:
    """What runs at `budget` rationales of the teacher would reach, by the pilot's models `points`
    and their answers `right` [points, questions], true or false.
    """
    rng = np.random.default_rng(seed)
    model = Model(points, budget=budget, n_pool=n_pool)
    z = posterior(
        Likelihood(model, np.asarray(right, dtype=float)), model.n_dimensions, rng, n_draws
    )
    spread = model.spread(z)
    assistant = model.learnt(z, "apprentice", [budget])[:, 0]
    own = assistant + spread * rng.standard_normal(len(z))
    middle = {"tutored": model.taught(z, assistant, n_pool)}
    middle["direct"] = model.learnt(z, "direct", [budget])[:, 0]
    measured = {p.role for p in points}
    if "answers_only" in measured:
        middle["answers_only"] = model.answered(z, n_pool)
    single = dict(middle) | {"tutored": model.taught(z, own, n_pool)}
    single = {arm: told + spread * rng.standard_normal(len(z)) for arm, told in single.items()}
    for role in ("instructed", "base"):
        if role in measured:
            middle[role] = single[role] = model.level(z, role)
    return Runs({a: expit(v) for a, v in single.items()}, {a: expit(v) for a, v in middle.items()})


def advised(runs: Runs, *, sure: float) -> Advice:
    """The verdict: an assistant pays off if its arm is the best with a probability of at least
    `sure`, and does not if another is; else the pilot cannot tell.
    """
    best, on_average = _best(runs.single), _best(runs.average)
    p = best["tutored"]
    others = {arm: share for arm, share in best.items() if arm != "tutored"}
    verdict: Settled = "cannot tell"
    if p >= sure:
        verdict = "assistant"
    elif 1 - p >= sure:
        verdict = "no assistant"
    gain = runs.single["tutored"] - runs.single["direct"]
    average = runs.average["tutored"] - runs.average["direct"]
    return Advice(
        verdict=verdict,
        leader=max(others if verdict == "no assistant" else best, key=best.__getitem__),
        arms={arm: told(values) for arm, values in runs.single.items()},
        best=best,
        gain=told(gain),
        p_gain=float((gain > 0).mean()),
        p_on_average=float((average > 0).mean()),
        p_if_runs_were_alike=on_average["tutored"],
    )


def told(values: np.ndarray) -> Told:
    """Mean and middle 95 % of draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Told(float(values.mean()), float(low), float(high))


def _best(runs: dict[str, np.ndarray]) -> dict[str, float]:
    """How often each arm is the best."""
    first = np.argmax(np.array(list(runs.values())), axis=0)
    return {arm: float((first == i).mean()) for i, arm in enumerate(runs)}
