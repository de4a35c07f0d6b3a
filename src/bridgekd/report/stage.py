"""The stage `report`: the page of an evaluation."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.metrics_file import METRICS_FILE
from bridgekd.recipe import FrozenModel, Recipe
from bridgekd.report.gather import gather_report
from bridgekd.report.page import render_report
from bridgekd.stages.run_context import RunContext
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.variants import VariantSettings


class ReportSettings(FrozenModel):
    """The recipe and the command that reproduce the run. `n_variants` is seeds times budgets.

    No other settings have the methods: the code of a method only decides which stages run.
    """

    recipe: dict[str, object]
    methods: tuple[VariantSettings, ...]
    n_variants: int
    command: str


class ReportStats(Stats):
    headline: str


def build_report_settings(
    recipe: Recipe, methods: Sequence[VariantSettings], n_variants: int, command: str
) -> ReportSettings:
    """Return what a report shows of a run. Keys that change no result are left out of its recipe,
    so that they do not change the report's fingerprint.
    """
    shown = recipe.model_dump(
        mode="json",
        exclude={
            "teacher": {"base_url", "expected_completion_tokens"},
            "assistant": {"server"},
            "pilot": True,
            "runtime": True,
        },
    )
    shown["teacher"]["transport"] = resolve_teacher(recipe.teacher).transport.name
    return ReportSettings(
        recipe=shown, methods=tuple(methods), n_variants=n_variants, command=command
    )


@stage(version=11, title="Report")
def report(
    output_dir: Path, settings: ReportSettings, ctx: RunContext, evaluation: Artifact
) -> ReportStats:
    """Write the page, its tables as Markdown, and all figures as JSON."""
    data = gather_report(evaluation, settings)
    page, markdown = render_report(data)
    (output_dir / "report.html").write_text(page, encoding="utf-8")
    (output_dir / "report.md").write_text(markdown, encoding="utf-8")
    shutil.copyfile(evaluation.path / METRICS_FILE, output_dir / METRICS_FILE)
    return ReportStats(headline=data.headline)
