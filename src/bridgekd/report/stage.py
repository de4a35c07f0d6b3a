"""The stage `report`: the page of an evaluation."""

import shutil
from pathlib import Path

from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.metrics_file import METRICS_FILE
from bridgekd.recipe import FrozenModel
from bridgekd.report.gather import gather_report
from bridgekd.report.page import render_report
from bridgekd.stages.run_context import RunContext
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


@stage(version=8, title="Report")
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
