"""Gathers a report's story from an evaluation and everything it was made from."""

import io
import shlex
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML

from bridgekd import settings as of
from bridgekd.core.crossed import Estimate
from bridgekd.edges.metrics_file import read_metrics
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.records import Example
from bridgekd.report.evidence import Reliability, StageRow
from bridgekd.report.story import Against, ArmRow, Gain, Pair, Reasoning, SeedRow, Story
from bridgekd.stages.cells import budget_of, seed_of
from bridgekd.stages.curves import model_labels, trainings_of
from bridgekd.stages.heading import headline, leading
from bridgekd.stages.mapping import pool_maps
from bridgekd.stages.naming import in_order, title
from bridgekd.stages.overlapping import compared_texts
from bridgekd.stages.showing import answers_of, side_by_side
from bridgekd.stages.spending import dropped_of, purchases_of
from bridgekd.stages.stats import CalibrationStats
from bridgekd.stats.metrics import (
    ArmMetrics,
    GroupAccuracy,
    MeanEstimate,
    Metrics,
    PairDifference,
    RecoveredGap,
    ReferenceDifference,
)
from bridgekd.stats.metrics import Gain as GainMetrics


def tell(evaluation: Artifact, s: of.Report) -> Story:
    """The story of one evaluation. Of several seeds or budgets the details are of the first."""
    behind = ancestors(evaluation)
    metrics = read_metrics(evaluation.path)
    arms = tuple(_arm(name, metrics.arms[name]) for name in in_order(metrics.arms))
    by_label = _models(evaluation, metrics)
    first = {name: next(iter(made)) for name, made in _by_name(by_label).items()}
    shown = {name: a for made in first.values() for name, a in ancestors(made).items()}
    best = leading({arm.name: arm for arm in arms})
    answers = answers_of(first)
    lead = "" if best is None else best.name.partition("@")[0]
    asked = next(a for a in behind.values() if a.stage == "load_test")
    test = read_rows(asked.path / "test.parquet", Example)
    libraries = evaluation.manifest.libraries
    several = s.n_seeds > 1 or len(s.budgets) > 1
    return Story(
        name=str(s.recipe["name"]),
        headline=headline({arm.name: arm for arm in arms}, metrics),
        arms=arms,
        chance=(metrics.chance.accuracy, metrics.chance.rule),
        pairs=tuple(_pair(row) for row in metrics.pairs),
        versus=tuple(_against(row) for row in metrics.vs_reference),
        purchases=tuple(purchases_of(behind, several=several)),
        examples=side_by_side(test, answers, lead),
        stages=tuple(_stage(a) for a in behind.values()),
        contamination=compared_texts(
            test, behind, (title(lead), answers[lead]) if lead in answers else None
        ),
        recipe_yaml=_yaml(s.recipe),
        command=command_of(
            str(s.recipe["name"]), str(s.recipe["method"]), s.methods, s.n_seeds, s.budgets
        ),
        libraries=", ".join(f"{k} {v}" for k, v in sorted(libraries.items())),
        reliabilities=tuple(_reliabilities(shown)),
        maps=pool_maps(shown),
        trainings=tuple(trainings_of(behind, model_labels(by_label), shown)),
        dropped=tuple(dropped_of(shown)),
        n_in_domain=_sizes([arm.by_domain for arm in metrics.arms.values()]),
        n_with_steps=_sizes([arm.by_steps for arm in metrics.arms.values()]),
        several=several,
        steps_told_by=metrics.step_source,
        tests=" and ".join(sorted({row.test for row in metrics.vs_reference})),
    )


def command_of(
    name: str, method: str, methods: Sequence[str], n_seeds: int, budgets: Sequence[int | str]
) -> str:
    """The command that does all of it again, given its recipe in a file of the run's name."""
    file = shlex.quote(f"{name}.yaml")
    if tuple(methods) == (method,) and n_seeds == 1 and not budgets:
        return f"bridgekd run {file}"
    parts = [f"bridgekd compare {file} --arms {','.join(methods)}"]
    parts += [f"--seeds {n_seeds}"] if n_seeds > 1 else []
    parts += [f"--budgets {','.join(map(str, budgets))}"] if budgets else []
    return " ".join(parts)


def _models(evaluation: Artifact, metrics: Metrics) -> dict[str, list[Artifact]]:
    """The answers of every model by the label of its arm, of the first seed first."""
    found: dict[str, list[tuple[int, Artifact]]] = {}
    answered = evaluation.get_inputs("predictions")
    names = evaluation.read_settings(of.Evaluate).arms
    for name, made in zip(names, answered, strict=True):
        behind = ancestors(made).values()
        label = f"{name}@{budget_of(behind)}"
        found.setdefault(label if label in metrics.arms else name, []).append(
            (seed_of(behind), made)
        )
    return {
        label: [made for _, made in sorted(each, key=lambda pair: pair[0])]
        for label, each in found.items()
    }


def _by_name(by_label: Mapping[str, list[Artifact]]) -> dict[str, list[Artifact]]:
    """The same by arm, the budgets in the order in which they were asked for."""
    found: dict[str, list[Artifact]] = {}
    for label, made in by_label.items():
        found.setdefault(label.partition("@")[0], []).extend(made)
    return found


def _arm(name: str, row: ArmMetrics) -> ArmRow:
    return ArmRow(
        name=name,
        title=title(name),
        accuracy=row.accuracy,
        low=row.ci95[0],
        high=row.ci95[1],
        n_test=row.n_test,
        n_queries=row.n_queries,
        spend_usd=row.spend_usd,
        seconds=row.seconds,
        by_domain={d: Estimate(v.accuracy, *v.ci95) for d, v in row.by_domain.items()},
        n_seeds=row.n_seeds,
        by_steps={n: Estimate(v.accuracy, *v.ci95) for n, v in row.by_steps.items()},
        reasoning=_reasoning(row),
        gain=None if row.gain is None else _gain(row.gain, row.gap_recovered),
        by_seed=tuple(
            SeedRow(r.seed, Estimate(r.accuracy, *r.ci95), r.n_queries, r.spend_usd)
            for r in row.by_seed
        ),
    )


def _sizes(groups: Sequence[Mapping[str, GroupAccuracy]]) -> dict[str, int]:
    """Test questions of every group: as many as the arm has that was asked most of them."""
    found: dict[str, int] = {}
    for arm in groups:
        for group, row in arm.items():
            found[group] = max(found.get(group, 0), row.n_test)
    return found


def _reasoning(row: ArmMetrics) -> Reasoning:
    learnt = row.training_set
    return Reasoning(
        words=Estimate(row.rationale_words.mean, *row.rationale_words.ci95),
        wrong_steps=_perhaps(row.wrong_steps),
        learnt_words=None if learnt is None else _perhaps(learnt.words),
        learnt_wrong=None if learnt is None else _perhaps(learnt.wrong_steps),
        n_learnt=() if learnt is None else learnt.n_kept,
    )


def _gain(row: GainMetrics, gap: RecoveredGap | None) -> Gain:
    usd, queries = row.usd_per_point, row.queries_per_point
    return Gain(
        over=title(row.start),
        points=Estimate(row.points, *row.ci95),
        verdict=row.verdict,
        usd=None if usd is None else Estimate(usd.value, *usd.ci95),
        queries=None if queries is None else Estimate(queries.value, *queries.ci95),
        gap=None if gap is None else Estimate(gap.fraction, *gap.ci95),
    )


def _perhaps(row: MeanEstimate | None) -> Estimate | None:
    return None if row is None else Estimate(row.mean, *row.ci95)


def _pair(row: PairDifference) -> Pair:
    names = f"{title(row.arm)} minus {title(row.reference)}"
    return Pair(names, row.difference, row.p, row.n_test)


def _against(row: ReferenceDifference) -> Against:
    return Against(
        title=title(row.arm),
        reference=title(row.reference),
        difference=row.difference,
        low=row.ci95[0],
        high=row.ci95[1],
        p_holm=row.p_holm,
    )


def _reliabilities(behind: Mapping[str, Artifact]) -> list[Reliability]:
    """What each stage that weighed rationales says of its confidences."""
    found = []
    for artifact in behind.values():
        told = artifact.read_stats(CalibrationStats).calibration
        if told is not None:
            title = artifact.manifest.title
            found.append(Reliability(title, told.n, told.ece, told.auroc, told.bins))
    return found


def _stage(artifact: Artifact) -> StageRow:
    facts = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in artifact.manifest.stats.items()
        if isinstance(v, int | float | str)
    )
    return StageRow(artifact.stage, artifact.path.name, artifact.manifest.seconds, facts)


def _yaml(recipe: Mapping[str, object]) -> str:
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(recipe), text)
    return text.getvalue()
