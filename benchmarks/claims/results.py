"""From answers to figures: an experiment's rows as cells of a comparison, and what one row is
against another.

The figures are those of `bridgekd compare`: intervals over seeds and questions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.row_files import read_rows
from bridgekd.records import Completion, Example
from bridgekd.sandbox.step_checker import count_wrong_steps
from bridgekd.stages.arm_results import ArmReader, ArmSettings
from bridgekd.stages.check_rationales import check_rationales
from bridgekd.stages.stats import CalibrationStats
from bridgekd.stages.train import train_student
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.compute_metrics import ArmResult, compute_metrics
from bridgekd.stats.intervals import holm_correction
from bridgekd.stats.metrics import ArmMetrics
from bridgekd.stats.mixed_effects import Difference, estimate_difference
from claims.experiments import Experiment, Row
from claims.jobs import Answers, Job, repeat_for_seeds

Right = np.ndarray  # right or wrong, [seeds, questions]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table. `less` and `p_holm` are against its reference; `picks` are the shares of
    what was bought by domain; `aurocs` how well a filter's confidences tell right from wrong
    rationales of the teacher, one a check.
    """

    title: str
    figures: ArmMetrics
    right: Mapping[str, Sequence[bool]]  # by question id, one a seed
    less: Difference | None
    p_holm: float | None
    picks: Mapping[str, float]
    aurocs: Sequence[float] = ()


def collect_lines(
    folder: Path, experiment: Experiment, done: Mapping[Job, Answers], seeds: Sequence[int]
) -> dict[str, Line]:
    """An experiment's lines by title. Holm's correction is over all its comparisons."""
    test = {e.id: e for e in read_test(next(iter(done.values())))}
    read = ArmReader(test, count_wrong_steps)
    results: list[ArmResult] = []
    picks: dict[str, Mapping[str, float]] = {}
    aurocs: dict[str, list[float]] = {}
    for row in experiment.rows:
        found = [load_artifact(done[job][row.model]) for job in repeat_for_seeds([row.job], seeds)]
        results += [
            replace(read.read_arm(describe_arm(row, answers), answers), arm=row.title)
            for answers in found
        ]
        picks[row.title] = compute_pick_fractions(found) if experiment.picks else {}
        aurocs[row.title] = [value for answers in found for value in _collect_aurocs(answers)]
    figures = compute_metrics(
        results,
        {id: e.domain for id, e in test.items()},
        chance=ChanceBaseline(0.0, "not computed"),
    ).arms
    right = {
        row.title: _count_right([r for r in results if r.arm == row.title])
        for row in experiment.rows
    }
    less = {row.title: _compare_with_reference(experiment, row, right) for row in experiment.rows}
    held = [title for title, difference in less.items() if difference is not None]
    adjusted = dict(
        zip(held, holm_correction([d.p for d in less.values() if d is not None]), strict=True)
    )
    return {
        title: Line(title, figures[title], right[title], less[title], adjusted.get(title),
                    picks[title], aurocs[title])
        for title in right
    }  # fmt: skip


def collect_matrices(*lines: Line) -> list[Right]:
    """Each line's answers [seeds, questions] on the questions that all of them were asked."""
    ids = sorted(set.intersection(*(set(line.right) for line in lines)))
    return [np.array([line.right[id] for id in ids], dtype=float).T for line in lines]


def _count_right(results: Sequence[ArmResult]) -> dict[str, list[bool]]:
    ids = set.intersection(*(set(r.is_correct) for r in results))
    return {id: [r.is_correct[id] for r in results] for id in sorted(ids)}


def _compare_with_reference(
    experiment: Experiment, row: Row, right: Mapping[str, Mapping[str, Sequence[bool]]]
) -> Difference | None:
    reference = experiment.reference(row)
    if reference is None:
        return None
    both = sorted(set(right[row.title]) & set(right[reference]))
    first, second = (
        np.array([right[title][id] for id in both], dtype=float).T
        for title in (reference, row.title)
    )
    return estimate_difference(first, second)


def describe_arm(row: Row, answers: Artifact) -> ArmSettings:
    """What the reader of an arm has to know of a row."""
    models = answers.get_inputs("model")
    is_result = any(model.stage == train_student.name for model in models)
    return ArmSettings(name=row.title, title=row.title, is_result=is_result)


def load_artifact(folder: Path) -> Artifact:
    """The artifact of a folder of the store."""
    stage, _, fingerprint = folder.name.rpartition("-")
    return Artifact(stage, fingerprint, folder)


def read_test(answers: Answers) -> list[Example]:
    """The test questions of a job."""
    made = find_ancestors(load_artifact(next(iter(answers.values())))).values()
    (test,) = (a for a in made if a.stage == "load_test")
    return read_rows(test.path / "test.parquet", Example)


def _collect_aurocs(answers: Artifact) -> list[float]:
    checks = [a for a in find_ancestors(answers).values() if a.stage == check_rationales.name]
    found = [a.read_stats(CalibrationStats).calibration for a in checks]
    return [c.auroc for c in found if c is not None and c.auroc is not None]


def compute_pick_fractions(found: Sequence[Artifact]) -> Mapping[str, float]:
    """What fraction of the questions that were paid for is from each domain."""
    purchases: Counter[str] = Counter()
    for made in found:
        behind = find_ancestors(made).values()
        pools = [a.path / "pool.parquet" for a in behind if a.stage == "load_pool"]
        domain = {e.id: e.domain for pool in pools for e in read_rows(pool, Example)}
        for bill in (a for a in behind if a.stage == "query_teacher"):
            rows = read_rows(bill.path / "completions.parquet", Completion)
            purchases.update(domain[c.id] for c in rows)
    return {name: n / purchases.total() for name, n in sorted(purchases.items())}
