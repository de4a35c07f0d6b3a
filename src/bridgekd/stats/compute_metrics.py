"""Compute `Metrics` from the answers of models.

The one idea: an `ArmResult` is one model, an arm with one seed and one budget. Results of the same
arm and budget form one row, with intervals over seeds and questions. A plain run is a comparison of
one seed and one budget. Every arm answered the same test questions; the teacher may have answered
only some of them, and once for all seeds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from bridgekd.stats.answer_metrics import AnswerTraits, make_mean, summarize_answers
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.intervals import holm_correction, mcnemar_test, wilson_interval
from bridgekd.stats.memorization_metrics import MemorizedCounts, summarize_memorization
from bridgekd.stats.metrics import (
    ArmMetrics,
    Gain,
    GroupAccuracy,
    MeanEstimate,
    Metrics,
    PairDifference,
    RatioEstimate,
    RecoveredGap,
    ReferenceDifference,
    SeedMetrics,
    TrainingSetMetrics,
)
from bridgekd.stats.mixed_effects import (
    estimate_difference,
    estimate_mean,
    estimate_proportion,
    estimate_ratio,
)
from bridgekd.stats.pass_at_k import SampleCounts, summarize_samples

REFERENCE_ARM = "direct"
START_ARMS = ("student_instructed", "student_base")  # a gain starts at the first that is present
TEACHER_ARM = "teacher"


@dataclass(frozen=True, slots=True)
class TrainingSetStats:
    """The kept rationales that a student was trained on: the words of each, and the fraction of
    wrong steps of each rationale that the checker could read.
    """

    words: Sequence[int] = ()
    wrong_steps: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One model on the test questions, and the amounts of all stages that it was made from.

    `budget` is the name in its purchases, "" for a model without a teacher. The mappings are by
    question id. `wrong_steps` has fractions in [0, 1], and is empty without a checker. The other
    fields are those of `ArmMetrics` and `SeedMetrics`.
    """

    arm: str
    seed: int
    budget: str
    is_correct: Mapping[str, bool]
    words: Mapping[str, int]
    wrong_steps: Mapping[str, float]
    n_queries: int
    spend_usd: float
    seconds: float
    is_trained: bool = False
    training_set: TrainingSetStats = field(default_factory=TrainingSetStats)
    calibration: Mapping[str, tuple[Calibration, ...]] = field(default_factory=dict)
    title: str = ""
    n_without_answer: int = 0
    n_at_reserve: int = 0
    answers: Mapping[str, AnswerTraits] = field(default_factory=dict)
    samples: SampleCounts | None = None
    memorized: MemorizedCounts | None = None


ResultsByLabel = dict[str, list[ArmResult]]  # results in the order of their seeds


def compute_metrics(
    results: Sequence[ArmResult],
    domains: Mapping[str, str],
    *,
    chance: ChanceBaseline,
    steps: Mapping[str, str] | None = None,
    step_source: str = "",
) -> Metrics:
    """Return all of metrics.json.

    `domains` and `steps` are groups by question id. A question without steps is in no group of
    `steps`.
    """
    rows = group_by_label(results)
    pairs = [
        _test_pair(rows, arm, reference)
        for reference, arm in combinations(rows, 2)
        if _is_comparable(rows, reference, arm) and _list_common_ids(rows[reference], rows[arm])
    ]
    return Metrics(
        arms={label: _summarize_arm(label, rows, domains, steps or {}) for label in rows},
        pairs=tuple(pairs),
        vs_reference=compare_with_reference(rows),
        chance=chance,
        step_source=step_source,
    )


def group_by_label(results: Sequence[ArmResult]) -> ResultsByLabel:
    """Return results by label: the arm's name, followed by `@budget` if the arm has several.

    Arms have the order of `results`; the budgets of an arm ascend.
    """
    budgets: dict[str, set[str]] = {}
    for result in results:
        budgets.setdefault(result.arm, set()).add(result.budget)

    def get_position(result: ArmResult) -> tuple[int, float, int]:
        size = re.search(r"[\d.]+", result.budget)
        return list(budgets).index(result.arm), float(size[0]) if size else 0.0, result.seed

    rows: ResultsByLabel = {}
    for result in sorted(results, key=get_position):
        has_several = len(budgets[result.arm]) > 1
        label = f"{result.arm}@{result.budget}" if has_several else result.arm
        rows.setdefault(label, []).append(result)
    return rows


def compare_with_reference(rows: ResultsByLabel) -> tuple[ReferenceDifference, ...]:
    """Return every trained student minus direct distillation at the same budget.

    An arm with one budget is compared with each budget of the reference. Holm's correction is over
    all these differences.
    """
    pairs = [
        (_test_pair(rows, label, reference), rows[reference][0].budget)
        for label, row in rows.items()
        for reference in rows
        if row[0].is_trained
        and rows[reference][0].arm == REFERENCE_ARM != row[0].arm
        and _is_comparable(rows, label, reference)
    ]
    adjusted = holm_correction([pair.p for pair, _ in pairs])
    return tuple(
        ReferenceDifference(**pair.model_dump(), budget=budget, p_holm=p)
        for (pair, budget), p in zip(pairs, adjusted, strict=True)
    )


def _summarize_arm(
    label: str, rows: ResultsByLabel, domains: Mapping[str, str], steps: Mapping[str, str]
) -> ArmMetrics:
    row, first = rows[label], rows[label][0]
    start = next((rows[name] for name in START_ARMS if name in rows), None)
    ids = _list_common_ids(row)
    correct = _build_matrix(row, ids)
    accuracy = estimate_proportion(correct)
    words = np.array([[result.words[id] for id in ids] for result in row])
    return ArmMetrics(
        arm=first.arm,
        title=first.title + (f", {first.budget}" if "@" in label else ""),
        budget=first.budget,
        is_trained=first.is_trained,
        accuracy=accuracy.mean,
        ci95=accuracy.ci95,
        interval="Wilson" if len(row) == 1 else "seeds and questions",
        n_test=len(ids),
        n_seeds=len(row),
        n_correct=sum(sum(result.is_correct.values()) for result in row),
        n_queries=_average([result.n_queries for result in row]),
        n_without_answer=_average([result.n_without_answer for result in row]),
        n_at_reserve=_average([result.n_at_reserve for result in row]),
        spend_usd=_average([result.spend_usd for result in row]),
        seconds=round(_average([result.seconds for result in row]), 1),
        by_domain=_group_accuracy(correct, ids, domains),
        by_steps=_group_accuracy(correct, ids, steps),
        rationale_words=make_mean(estimate_mean(words)),
        answers=summarize_answers([result.answers for result in row], ids),
        samples=summarize_samples([result.samples for result in row], ids),
        memorization=summarize_memorization([result.memorized for result in row]),
        wrong_steps=_summarize_wrong_steps(row),
        training_set=_summarize_training_sets([result.training_set for result in row]),
        by_seed=tuple(_summarize_seed(result) for result in row),
        gain=_compute_gain(start, row),
        gap_recovered=_compute_gap(rows, row, start),
    )


def _group_accuracy(
    correct: np.ndarray, ids: Sequence[str], groups: Mapping[str, str]
) -> dict[str, GroupAccuracy]:
    """Return the accuracy in every group of questions; a question without a group is ignored."""
    accuracies = {}
    for group in sorted({groups[id] for id in ids if id in groups}):
        columns = correct[:, [groups.get(id) == group for id in ids]]
        estimate = estimate_proportion(columns)
        accuracies[group] = GroupAccuracy(
            accuracy=estimate.mean, ci95=estimate.ci95, n_test=columns.shape[1]
        )
    return accuracies


def _summarize_seed(result: ArmResult) -> SeedMetrics:
    n, n_correct = len(result.is_correct), sum(result.is_correct.values())
    return SeedMetrics(
        seed=result.seed,
        accuracy=n_correct / n if n else 0.0,
        ci95=wilson_interval(n_correct, n),
        n_correct=n_correct,
        n_test=n,
        n_queries=result.n_queries,
        n_without_answer=result.n_without_answer,
        n_at_reserve=result.n_at_reserve,
        spend_usd=result.spend_usd,
        seconds=result.seconds,
        calibration=dict(result.calibration),
    )


def _summarize_wrong_steps(row: Sequence[ArmResult]) -> MeanEstimate | None:
    ids = sorted(set.intersection(*(set(result.wrong_steps) for result in row)))
    if not ids:
        return None
    return make_mean(estimate_mean(np.array([[r.wrong_steps[id] for id in ids] for r in row])))


def _summarize_training_sets(sets: Sequence[TrainingSetStats]) -> TrainingSetMetrics | None:
    if not all(stats.words for stats in sets):
        return None
    return TrainingSetMetrics(
        n_kept=tuple(len(stats.words) for stats in sets),
        words=_average_over_seeds([stats.words for stats in sets]),
        wrong_steps=_average_over_seeds([stats.wrong_steps for stats in sets]),
    )


def _average_over_seeds(values: Sequence[Sequence[float]]) -> MeanEstimate | None:
    """Return the mean of one value per seed, as seeds differ in the number of rationales.

    The interval of a single seed is over its rationales.
    """
    arrays = [np.array(of_seed, dtype=float) for of_seed in values]
    means = arrays[0] if len(arrays) == 1 else np.array([a.mean() for a in arrays if len(a)])
    return make_mean(estimate_mean(means[None, :])) if means.size else None


def _compute_gain(start: Sequence[ArmResult] | None, row: Sequence[ArmResult]) -> Gain | None:
    if start is None or not row[0].is_trained:
        return None
    difference = estimate_difference(*_align(start, row))
    points, (low, high) = 100 * difference.mean, (100 * end for end in difference.ci95)

    def divide(amounts: Sequence[float]) -> RatioEstimate | None:
        amount = _average(amounts)
        if low <= 0:
            return None
        return RatioEstimate(value=amount / points, ci95=(amount / high, amount / low))

    return Gain(
        start=start[0].arm,
        points=points,
        ci95=(low, high),
        p=difference.p,
        verdict="gain" if low > 0 else "loss" if high < 0 else "not shown",
        usd_per_point=divide([result.spend_usd for result in row]),
        queries_per_point=divide([result.n_queries for result in row]),
    )


def _compute_gap(
    rows: ResultsByLabel, row: Sequence[ArmResult], start: Sequence[ArmResult] | None
) -> RecoveredGap | None:
    if start is None or not row[0].is_trained or TEACHER_ARM not in rows:
        return None
    ids = _list_common_ids(rows[TEACHER_ARM], row, start)
    if not ids:
        return None
    teacher, arm, before = (_build_matrix(r, ids) for r in (rows[TEACHER_ARM], row, start))
    ratio = estimate_ratio(arm - before, teacher - before)
    if ratio is None:
        return None
    return RecoveredGap(start=start[0].arm, fraction=ratio.mean, ci95=ratio.ci95, n_test=len(ids))


def _test_pair(rows: ResultsByLabel, arm: str, reference: str) -> PairDifference:
    first, second = _align(rows[reference], rows[arm])
    difference = estimate_difference(first, second)
    by_seed = np.broadcast_arrays(first, second)
    return PairDifference(
        arm=arm,
        reference=reference,
        n_test=first.shape[1],
        n_seeds=len(by_seed[0]),
        difference=difference.mean,
        ci95=difference.ci95,
        p=difference.p,
        test=difference.test,
        p_by_seed=tuple(
            mcnemar_test((a > 0.5).tolist(), (b > 0.5).tolist())
            for a, b in zip(*by_seed, strict=True)
        ),
    )


def _align(
    first: Sequence[ArmResult], second: Sequence[ArmResult]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the correctness [seeds, questions] of both, on common questions and seeds.

    A single row, such as the teacher's, is compared with every seed.
    """
    ids = _list_common_ids(first, second)
    seeds = {result.seed for result in first} & {result.seed for result in second}
    if min(len(first), len(second)) > 1:
        first, second = ([r for r in row if r.seed in seeds] for row in (first, second))
    return _build_matrix(first, ids), _build_matrix(second, ids)


def _is_comparable(rows: ResultsByLabel, first: str, second: str) -> bool:
    has_single = "@" not in first or "@" not in second
    return has_single or rows[first][0].budget == rows[second][0].budget


def _list_common_ids(*rows: Sequence[ArmResult]) -> list[str]:
    return sorted(set.intersection(*(set(result.is_correct) for row in rows for result in row)))


def _build_matrix(row: Sequence[ArmResult], ids: Sequence[str]) -> np.ndarray:
    return np.array([[result.is_correct[id] for id in ids] for result in row], dtype=float)


def _average(amounts: Sequence[float]) -> int | float:
    """Return the mean; an int if the amounts and their mean are ints: `12` queries, not `12.0`."""
    mean = sum(amounts) / len(amounts)
    return int(mean) if mean == int(mean) and isinstance(amounts[0], int) else mean
