"""The stage `report`: the page of an evaluation."""

import shutil
from pathlib import Path

from bridgekd import settings as of
from bridgekd.edges.metrics_file import METRICS_FILE
from bridgekd.edges.store import Artifact, Stats, stage
from bridgekd.report.gather import gather_report
from bridgekd.report.page import render_report
from bridgekd.stages.live import Live


class ReportStats(Stats):
    headline: str


@stage(version=5, title="Report")
def report(out: Path, settings: of.Report, live: Live, evaluation: Artifact) -> ReportStats:
    """The page that a person reads, its tables as Markdown, and the figures for programs."""
    data = gather_report(evaluation, settings)
    page, markdown = render_report(data)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.md").write_text(markdown, encoding="utf-8")
    shutil.copyfile(evaluation.path / METRICS_FILE, out / METRICS_FILE)
    return ReportStats(headline=data.headline)
