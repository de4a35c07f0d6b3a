"""Gathers a report's data from an evaluation and everything that it was made from."""

import io
import shlex
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML

from bridgekd import settings as of
from bridgekd.edges.metrics_file import read_metrics
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.records import Example
from bridgekd.report.contamination import compare_texts
from bridgekd.report.embedding_map import build_embedding_maps
from bridgekd.report.headline import build_headline, find_leading_arm
from bridgekd.report.purchases import collect_dropped, collect_purchases
from bridgekd.report.report_data import ArmRow, CalibrationRow, ReportData
from bridgekd.report.sample_predictions import list_shown_arms, read_answers, sample_predictions
from bridgekd.report.titles import get_title, sort_labels
from bridgekd.report.training_curves import collect_trainings
from bridgekd.stages.cells import budget_of, seed_of
from bridgekd.stages.stats import CalibrationStats
from bridgekd.stats.metrics import Metrics


def gather_report(evaluation: Artifact, settings: of.Report) -> ReportData:
    """Return the data of one report. With several seeds or budgets, details are about the first."""
    made_from, metrics = ancestors(evaluation), read_metrics(evaluation.path)
    name, method = str(settings.recipe["name"]), str(settings.recipe["method"])
    lead = find_leading_arm(metrics, (method, *settings.methods))
    titles = {label: get_title(label) for label in sort_labels(metrics.arms)}
    predictions = _group_predictions(evaluation, metrics)
    first: dict[str, Artifact] = {}
    for label, artifacts in predictions.items():
        first.setdefault(metrics.arms[label].arm, artifacts[0])
    first_made_from = {k: a for made in first.values() for k, a in ancestors(made).items()}
    answers = read_answers(first)
    lead_arm = None if lead is None else metrics.arms[lead].arm
    test = read_rows(evaluation.get_input("test").path / "test.parquet", Example)
    has_variants = settings.n_seeds > 1 or len(settings.budgets) > 1
    versions = evaluation.manifest.libraries
    return ReportData(
        name=name,
        headline=build_headline(metrics, lead),
        metrics=metrics,
        arms=tuple(
            ArmRow(label, title, metrics.arms[label], metrics.arms[label].arm == lead_arm)
            for label, title in titles.items()
        ),
        contamination=compare_texts(
            test,
            made_from,
            title="" if lead_arm is None else get_title(lead_arm),
            answers=None if lead_arm is None else answers[lead_arm],
        ),
        recipe_yaml=_format_yaml(settings.recipe),
        command=build_command(name, method, settings.methods, settings.n_seeds, settings.budgets),
        libraries=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        titles=titles,
        examples=sample_predictions(
            test, answers, [] if lead_arm is None else list_shown_arms(first, lead_arm)
        ),
        purchases=tuple(collect_purchases(made_from, has_variants)),
        embedding_maps=build_embedding_maps(first_made_from),
        trainings=tuple(collect_trainings(made_from, predictions, first_made_from)),
        dropped=tuple(collect_dropped(first_made_from)),
        calibrations=tuple(_collect_calibrations(first_made_from)),
        has_variants=has_variants,
    )


def build_command(
    name: str, method: str, methods: Sequence[str], n_seeds: int, budgets: Sequence[int | str]
) -> str:
    """Return the command that makes a run again if its recipe is in a file of the run's name."""
    file = shlex.quote(f"{name}.yaml")
    if tuple(methods) == (method,) and n_seeds == 1 and not budgets:
        return f"bridgekd run {file}"
    parts = [f"bridgekd compare {file} --arms {','.join(methods)}"]
    parts += [f"--seeds {n_seeds}"] if n_seeds > 1 else []
    parts += [f"--budgets {','.join(map(str, budgets))}"] if budgets else []
    return " ".join(parts)


def _group_predictions(evaluation: Artifact, metrics: Metrics) -> dict[str, list[Artifact]]:
    """The predictions by label, the first seed first; arms and budgets in the order of the run."""
    found: dict[str, list[tuple[int, str, Artifact]]] = {}
    names = evaluation.read_settings(of.Evaluate).arms
    for name, artifact in zip(names, evaluation.get_inputs("predictions"), strict=True):
        made_from = ancestors(artifact).values()
        label = f"{name}@{budget_of(made_from)}"
        label = label if label in metrics.arms else name
        found.setdefault(label, []).append((seed_of(made_from), artifact.path.name, artifact))
    return {
        label: [artifact for _, _, artifact in sorted(rows, key=lambda row: row[:2])]
        for label, rows in found.items()
    }


def _collect_calibrations(made_from: Mapping[str, Artifact]) -> list[CalibrationRow]:
    rows = []
    for artifact in made_from.values():
        found = artifact.read_stats(CalibrationStats).calibration
        if found is not None:
            row = CalibrationRow(artifact.manifest.title, found.n, found.ece, found.auroc)
            rows.append(row)
    return rows


def _format_yaml(recipe: Mapping[str, object]) -> str:
    text, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(recipe), text)
    return text.getvalue()
