"""From models' answers to the figures of a comparison: one row an arm and budget, with intervals
over seeds and questions, and what it gained over others.

The one idea: a `Cell` is one model, an arm under one seed and one budget; cells of the same arm and
budget are one row. A plain run is the comparison of one seed and one budget. Every arm was asked
the same test questions; the teacher perhaps only some of them, and once for all seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from bridgekd.core.crossed import Estimate, difference_of, mean_of, ratio_of, share_of
from bridgekd.core.statistics import holm, mcnemar, two_level, wilson

REFERENCE = "direct"  # what every trained student is held against
STARTS = ("student_instructed", "student_base")  # what a gain is counted from: the first there is
TEACHER = "teacher"


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a student learnt from: per kept rationale its words and, where they can be checked, the
    share of its steps that are wrong.
    """

    words: Sequence[int] = ()
    wrong_steps: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on the test questions, and what making it alone took.

    `budget` is as its purchases name it, empty for a model that nobody paid a teacher for. The
    mappings are by question id; `wrong_steps` holds shares in [0, 1], nothing without a checker.
    `calibration` has, by the name of a stage, one entry for each time it weighed rationales.
    """

    arm: str
    seed: int
    budget: str
    right: Mapping[str, bool]
    words: Mapping[str, int]
    wrong_steps: Mapping[str, float]
    n_queries: int
    spend_usd: float
    seconds: float
    trained: bool = False  # a student that was trained on the task
    lessons: Lessons = field(default_factory=Lessons)
    calibration: Mapping[str, list[Any]] = field(default_factory=dict)


Rows = dict[str, list[Cell]]  # by label, cells in the order of their seeds


def compared(
    cells: Sequence[Cell], domains: Mapping[str, str], steps: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """All of metrics.json: `arms`, `pairs` and `versus`; `domains` and `steps`, the groups by
    number of steps, are by question id. A question may lack its steps.
    """
    rows = labelled(cells)
    start = next((name for name in STARTS if name in rows), None)
    arms = {}
    for label, row in rows.items():
        arms[label] = _arm(row, domains, steps or {}) | _gains(rows, label, start)
    return {"arms": arms, "pairs": _pairs(rows), "versus": versus(rows)}


def labelled(cells: Sequence[Cell]) -> Rows:
    """Cells by label: the arm's name, with `@budget` behind it where it has several budgets."""
    budgets: dict[str, set[str]] = {}
    for cell in cells:
        budgets.setdefault(cell.arm, set()).add(cell.budget)
    rows: Rows = {}
    for cell in sorted(cells, key=lambda c: c.seed):
        several = len(budgets[cell.arm]) > 1
        rows.setdefault(f"{cell.arm}@{cell.budget}" if several else cell.arm, []).append(cell)
    return rows


def versus(rows: Rows) -> list[dict[str, Any]]:
    """Every trained student against direct distillation at the same budget; an arm whose budget
    does not vary is held against each. Holm's correction is over all of these.
    """
    found = []
    for label, row in rows.items():
        for reference, other in rows.items():
            is_reference = other[0].arm == REFERENCE and row[0].arm != REFERENCE
            if row[0].trained and is_reference and _comparable(rows, label, reference):
                told = _paired(other, row) | {"bootstrap95": _bootstrap(other, row)}
                names = {"arm": label, "reference": reference, "budget": other[0].budget}
                found.append(names | told)
    adjusted = holm([row["p"] for row in found])
    return [row | {"p_holm": p} for row, p in zip(found, adjusted, strict=True)]


def _arm(
    row: Sequence[Cell], domains: Mapping[str, str], steps: Mapping[str, str]
) -> dict[str, Any]:
    ids = _ids(row)
    right = _matrix(row, ids)
    told = share_of(right)
    return {
        "arm": row[0].arm,
        "budget": row[0].budget,
        "accuracy": told.mean,
        "ci95": [told.low, told.high],
        "interval": _kind(len(row)),
        "n_test": len(ids),
        "n_seeds": len(row),
        "n_correct": sum(sum(c.right.values()) for c in row),
        "n_queries": _mean([c.n_queries for c in row]),
        "spend_usd": _mean([c.spend_usd for c in row]),
        "seconds": round(_mean([c.seconds for c in row]), 1),
        "by_domain": _by_group(right, ids, domains),
        "by_steps": _by_group(right, ids, steps),
        "words": _figure(mean_of(np.array([[c.words[id] for id in ids] for c in row]))),
        "wrong_steps": _checked(row),
        "lessons": _lessons([c.lessons for c in row]),
        "by_seed": [_of_seed(c) for c in row],
    }


def _by_group(
    right: np.ndarray, ids: Sequence[str], groups: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The accuracy in every group of questions; a question without one is left out."""
    found: dict[str, list[int]] = {}
    for place, id in enumerate(ids):
        if id in groups:
            found.setdefault(groups[id], []).append(place)
    return {
        group: _accuracy(share_of(right[:, places])) | {"n_test": len(places)}
        for group, places in sorted(found.items())
    }


def _of_seed(cell: Cell) -> dict[str, Any]:
    """One run's figures, with Wilson's interval."""
    n, n_correct = len(cell.right), sum(cell.right.values())
    return {
        "seed": cell.seed,
        "accuracy": n_correct / n if n else 0.0,
        "ci95": list(wilson(n_correct, n)),
        "n_correct": n_correct,
        "n_test": n,
        "n_queries": cell.n_queries,
        "spend_usd": cell.spend_usd,
        "seconds": cell.seconds,
        "calibration": dict(cell.calibration),
    }


def _gains(rows: Rows, label: str, start: str | None) -> dict[str, Any]:
    """What a trained student gained over the one it was before, what a point of that took, and
    which share of the gap to the teacher it is; None where that is not told.
    """
    none = {"gain": None, "gap_recovered": None}
    row = rows[label]
    if start is None or not row[0].trained:
        return none
    told = _paired(rows[start], row)
    low, high = (100 * end for end in told["ci95"])
    points = 100 * told["difference"]
    gain: dict[str, Any] = {
        "over": start,
        "points": points,
        "ci95": [low, high],
        "p": told["p"],
        "verdict": "gain" if low > 0 else "loss" if high < 0 else "not shown",
    }
    for name, amount in (("usd", "spend_usd"), ("queries", "n_queries")):
        paid = _mean([getattr(c, amount) for c in row])
        each = {"value": paid / points, "ci95": [paid / high, paid / low]} if low > 0 else None
        gain[f"{name}_per_point"] = each
    return {"gain": gain, "gap_recovered": _gap(rows, row, rows[start])}


def _gap(rows: Rows, row: Sequence[Cell], start: Sequence[Cell]) -> dict[str, Any] | None:
    """(arm - start) / (teacher - start) on the questions that the teacher was asked."""
    if TEACHER not in rows:
        return None
    ids = sorted(set(_ids(rows[TEACHER])) & set(_ids(row)) & set(_ids(start)))
    if not ids:
        return None
    teacher, arm, before = (_matrix(r, ids) for r in (rows[TEACHER], row, start))
    told = ratio_of(arm - before, teacher - before)
    if told is None:
        return None
    return {"over": start[0].arm, "share": told.mean, "ci95": [told.low, told.high]} | {
        "n_test": len(ids)
    }


def _pairs(rows: Rows) -> dict[str, dict[str, Any]]:
    """Every two arms of the same budget, on the questions both answered."""
    return {
        f"{second} - {first}": _paired(rows[first], rows[second])
        for first, second in combinations(rows, 2)
        if _comparable(rows, first, second) and set(_ids(rows[first])) & set(_ids(rows[second]))
    }


def _paired(first: Sequence[Cell], second: Sequence[Cell]) -> dict[str, Any]:
    one, other = _aligned(first, second)
    told = difference_of(one, other)
    seeds = np.broadcast_arrays(one, other)
    return {
        "n_test": one.shape[1],
        "n_seeds": len(seeds[0]),
        "difference": told.mean,
        "ci95": [told.low, told.high],
        "p": told.p,
        "test": told.test,
        "p_by_seed": [
            mcnemar((a > 0.5).tolist(), (b > 0.5).tolist()) for a, b in zip(*seeds, strict=True)
        ],
    }


def _bootstrap(first: Sequence[Cell], second: Sequence[Cell]) -> list[float]:
    one, other = _aligned(first, second)
    return list(two_level(np.subtract(other, one))[1:])


def _aligned(first: Sequence[Cell], second: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong [seeds, questions] of both, on common questions and seeds; a single row, as
    the teacher's, is held against every seed.
    """
    ids = sorted(set(_ids(first)) & set(_ids(second)))
    seeds = {c.seed for c in first} & {c.seed for c in second}
    if min(len(first), len(second)) > 1:
        first, second = ([c for c in row if c.seed in seeds] for row in (first, second))
    return _matrix(first, ids), _matrix(second, ids)


def _comparable(rows: Rows, first: str, second: str) -> bool:
    one, other = rows[first][0], rows[second][0]
    return one.budget == other.budget or "@" not in first or "@" not in second


def _ids(row: Sequence[Cell]) -> list[str]:
    """The questions that every cell of a row answered."""
    return sorted(set.intersection(*(set(c.right) for c in row)))


def _matrix(row: Sequence[Cell], ids: Sequence[str]) -> np.ndarray:
    return np.array([[c.right[id] for id in ids] for c in row], dtype=float)


def _checked(row: Sequence[Cell]) -> dict[str, Any] | None:
    ids = sorted(set.intersection(*(set(c.wrong_steps) for c in row)))
    if not ids:
        return None
    return _figure(mean_of(np.array([[c.wrong_steps[id] for id in ids] for c in row])))


def _lessons(lessons: Sequence[Lessons]) -> dict[str, Any] | None:
    """Lessons differ from seed to seed in number, so a seed is one figure; a lone one is told from
    its rows.
    """
    if not all(found.words for found in lessons):
        return None
    told: dict[str, Any] = {"n_kept": [len(found.words) for found in lessons]}
    for name in ("words", "wrong_steps"):
        each = [np.array(getattr(found, name), dtype=float) for found in lessons]
        means = each[0] if len(each) == 1 else np.array([e.mean() for e in each if len(e)])
        told[name] = _figure(mean_of(means[None, :])) if means.size else None
    return told


def _mean(amounts: Sequence[float]) -> float:
    """Whole where it is whole, so that queries read as such."""
    mean = sum(amounts) / len(amounts)
    return int(mean) if mean == int(mean) and isinstance(amounts[0], int) else mean


def _accuracy(told: Estimate) -> dict[str, Any]:
    return {"accuracy": told.mean, "ci95": [told.low, told.high]}


def _figure(told: Estimate) -> dict[str, Any]:
    return {"mean": told.mean, "ci95": [told.low, told.high]}


def _kind(n_seeds: int) -> str:
    return "Wilson" if n_seeds == 1 else "seeds and questions"
