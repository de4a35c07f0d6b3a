"""Gathers a report's data from an evaluation and everything that it was made from."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example
from bridgekd.report.contamination import compare_texts
from bridgekd.report.embedding_map import build_embedding_maps
from bridgekd.report.headline import build_headline, find_leading_arm
from bridgekd.report.purchases import collect_dropped, collect_purchases
from bridgekd.report.report_data import ArmRow, CalibrationRow, ReportData
from bridgekd.report.sample_predictions import list_shown_arms, read_answers, sample_predictions
from bridgekd.report.training_curves import collect_trainings
from bridgekd.stages.arm_results import find_budget, find_seed
from bridgekd.stages.evaluate import EvaluateSettings
from bridgekd.stages.stats import CalibrationStats
from bridgekd.stats.metrics import Metrics
from bridgekd.variants import VariantRef

if TYPE_CHECKING:
    from bridgekd.report.stage import ReportSettings


def gather_report(evaluation: Artifact, settings: "ReportSettings") -> ReportData:
    """Return the data of one report. With several seeds or budgets, details are about the first."""
    made_from, metrics = find_ancestors(evaluation), read_metrics(evaluation.path)
    own = VariantRef.model_validate(settings.recipe["method"])
    lead = find_leading_arm(metrics, [str(own.name), *(m.name for m in settings.methods)])
    titles = {arm.name: arm.title for arm in evaluation.read_settings(EvaluateSettings).arms}
    predictions = _group_predictions(evaluation, metrics)
    first: dict[str, Artifact] = {}
    for label, artifacts in predictions.items():
        first.setdefault(metrics.arms[label].arm, artifacts[0])
    first_made_from = {k: a for made in first.values() for k, a in find_ancestors(made).items()}
    answers = read_answers(first)
    lead_arm = None if lead is None else metrics.arms[lead].arm
    test = read_rows(evaluation.get_input("test").path / "test.parquet", Example)
    has_variants = settings.n_variants > 1
    versions = evaluation.manifest.libraries
    return ReportData(
        name=str(settings.recipe["name"]),
        headline=build_headline(metrics, lead),
        metrics=metrics,
        arms=tuple(
            ArmRow(label, arm.title, arm, arm.arm == lead_arm)
            for label, arm in metrics.arms.items()
        ),
        contamination=compare_texts(
            test,
            made_from,
            title="" if lead_arm is None else titles[lead_arm],
            answers=None if lead_arm is None else answers[lead_arm],
        ),
        recipe_yaml=_format_yaml(settings.recipe),
        command=settings.command,
        libraries=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        titles={label: arm.title for label, arm in metrics.arms.items()},
        examples=sample_predictions(
            test, answers, [] if lead_arm is None else list_shown_arms(first, lead_arm), titles
        ),
        purchases=tuple(collect_purchases(made_from, has_variants)),
        embedding_maps=build_embedding_maps(first_made_from),
        trainings=tuple(
            collect_trainings(made_from, _label_models(predictions, metrics), first_made_from)
        ),
        dropped=tuple(collect_dropped(first_made_from)),
        calibrations=tuple(_collect_calibrations(first_made_from)),
        has_variants=has_variants,
    )


def _group_predictions(evaluation: Artifact, metrics: Metrics) -> dict[str, list[Artifact]]:
    """The predictions by label, the first seed first; arms and budgets in the order of the run."""
    found: dict[str, list[tuple[int, str, Artifact]]] = {}
    arms = evaluation.read_settings(EvaluateSettings).arms
    for arm, artifact in zip(arms, evaluation.get_inputs("predictions"), strict=True):
        made_from = find_ancestors(artifact).values()
        label = f"{arm.name}@{find_budget(made_from)}"
        label = label if label in metrics.arms else arm.name
        found.setdefault(label, []).append((find_seed(made_from), artifact.path.name, artifact))
    return {
        label: [artifact for _, _, artifact in sorted(rows, key=lambda row: row[:2])]
        for label, rows in found.items()
    }


def _label_models(
    predictions: Mapping[str, Sequence[Artifact]], metrics: Metrics
) -> dict[str, str]:
    """The titles of the arms by the folder of their model."""
    titles: dict[str, list[str]] = {}
    for label, artifacts in predictions.items():
        for artifact in artifacts:
            for model in artifact.get_inputs("model"):
                titles.setdefault(model.path.name, []).append(metrics.arms[label].title)
    return {folder: " and ".join(names) for folder, names in titles.items()}


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
