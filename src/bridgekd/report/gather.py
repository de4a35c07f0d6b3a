"""Collect a report's data from an evaluation and all of its ancestors."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example
from bridgekd.report.contamination import compare_texts
from bridgekd.report.embedding_map import build_embedding_maps
from bridgekd.report.headline import build_headline, find_leading_arm
from bridgekd.report.purchases import collect_dropped, describe_selection, gather_purchases
from bridgekd.report.report_data import ReportData
from bridgekd.report.sample_predictions import list_shown_arms, read_answers, sample_predictions
from bridgekd.report.training_curves import collect_trainings
from bridgekd.stages.arm_results import find_budget, find_seed
from bridgekd.stages.evaluate import EvaluateSettings
from bridgekd.stages.predict import predict
from bridgekd.stages.select_questions import check_selection, select_questions
from bridgekd.stages.stats import CalibrationStats, GenerationStats
from bridgekd.stats.metrics import Metrics
from bridgekd.variants import VariantRef

if TYPE_CHECKING:
    from bridgekd.report.stage import ReportSettings


def gather_report(evaluation: Artifact, settings: "ReportSettings") -> ReportData:
    """Return the data of a report. With several seeds or budgets, details describe the first."""
    ancestors, metrics = find_ancestors(evaluation), read_metrics(evaluation.path)
    own = VariantRef.model_validate(settings.recipe["method"])
    label = find_leading_arm(metrics, [str(own.name), *(m.name for m in settings.methods)])
    lead = None if label is None else metrics.arms[label].arm
    titles = {arm.name: arm.title for arm in evaluation.read_settings(EvaluateSettings).arms}
    predictions = _group_predictions(evaluation, metrics)
    first: dict[str, Artifact] = {}
    for key, artifacts in predictions.items():
        first.setdefault(metrics.arms[key].arm, artifacts[0])
    first_ancestors = {k: a for made in first.values() for k, a in find_ancestors(made).items()}
    answers = read_answers(first)
    test = read_rows(evaluation.get_input("test").path / "test.parquet", Example)
    has_variants = settings.n_variants > 1
    versions = evaluation.manifest.libraries
    models = _label_models(predictions, metrics)
    return ReportData(
        name=str(settings.recipe["name"]),
        headline=build_headline(metrics, label),
        metrics=metrics,
        lead=lead,
        contamination=compare_texts(
            test,
            ancestors,
            title="" if lead is None else titles[lead],
            answers=None if lead is None else answers[lead],
        ),
        recipe_yaml=_format_yaml(settings.recipe),
        command=settings.command,
        libraries=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        examples=sample_predictions(
            test, answers, [] if lead is None else list_shown_arms(first, lead), titles
        ),
        purchases=tuple(gather_purchases(ancestors, has_variants)),
        selections=tuple(
            (describe_selection(artifact), check)
            for artifact in first_ancestors.values()
            if artifact.stage == select_questions.name
            and (check := check_selection(artifact)) is not None
        ),
        embedding_maps=build_embedding_maps(first_ancestors),
        trainings=tuple(collect_trainings(ancestors, models, first_ancestors)),
        dropped=tuple(collect_dropped(first_ancestors)),
        calibrations=tuple(
            (artifact.manifest.title, calibration)
            for artifact in first_ancestors.values()
            if (calibration := artifact.read_stats(CalibrationStats).calibration) is not None
        ),
        cut_off=tuple(
            (_name_texts(artifact, models), speed)
            for artifact in ancestors.values()
            if artifact.stage != predict.name  # it is in the table of the arms
            and (speed := artifact.read_stats(GenerationStats).generation)
            and speed.n_cut_off
        ),
        has_variants=has_variants,
    )


def _group_predictions(evaluation: Artifact, metrics: Metrics) -> dict[str, list[Artifact]]:
    """Return the predictions by label, in the order of the run, the smallest seed first."""
    groups: dict[str, list[tuple[int, str, Artifact]]] = {}
    arms = evaluation.read_settings(EvaluateSettings).arms
    for arm, artifact in zip(arms, evaluation.get_inputs("predictions"), strict=True):
        ancestors = find_ancestors(artifact).values()
        label = f"{arm.name}@{find_budget(ancestors)}"
        label = label if label in metrics.arms else arm.name
        groups.setdefault(label, []).append((find_seed(ancestors), artifact.path.name, artifact))
    return {
        label: [artifact for _, _, artifact in sorted(rows, key=lambda row: row[:2])]
        for label, rows in groups.items()
    }


def _label_models(predictions: Mapping[str, list[Artifact]], metrics: Metrics) -> dict[str, str]:
    """Return the titles of the arms by the folder of their model."""
    titles: dict[str, list[str]] = {}
    for label, artifacts in predictions.items():
        for artifact in artifacts:
            for model in artifact.get_inputs("model"):
                titles.setdefault(model.path.name, []).append(metrics.arms[label].title)
    return {folder: " and ".join(names) for folder, names in titles.items()}


def _name_texts(artifact: Artifact, models: Mapping[str, str]) -> str:
    """Return the title of a stage that generated texts, and its model if that is an arm."""
    names = [models[m.path.name] for m in artifact.get_inputs("model") if m.path.name in models]
    return ", ".join([artifact.manifest.title, *names])


def _format_yaml(recipe: Mapping[str, object]) -> str:
    text, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.dump(dict(recipe), text)
    return text.getvalue()
