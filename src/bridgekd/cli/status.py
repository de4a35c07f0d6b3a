"""`bridgekd status` and `bridgekd report`: a run in the store, finished or not."""

from pathlib import Path

from bridgekd import api
from bridgekd.cli import render_metrics, render_plan
from bridgekd.cli.documents import (
    PlanDocument,
    StageStatus,
    StatusDocument,
    build_plan_document,
    print_document,
)
from bridgekd.cli.terminal import JsonFlag, RunName, StorePath, err, out
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.metrics_file import METRICS_FILE, read_metrics
from bridgekd.ledger.spend import sum_spend
from bridgekd.runs.metadata import read_metadata
from bridgekd.runs.run import RunMetadata, StageFolder
from bridgekd.stages.stats import PurchaseStats
from bridgekd.throughput import WorkKind


def status_command(
    run: RunName, store: StorePath = Path("runs"), as_json: JsonFlag = False
) -> None:
    """Show the stages, time, spend and folders of a run, and the remaining cost."""
    metadata = read_metadata(store, run)
    stages = [_read_stage(entry, store) for entry in metadata.stages]
    stages += [
        StageStatus(stage=path.name.rpartition("-")[0], folder=path.name, state="unfinished")
        for path in sorted(store.glob("*.partial"))
    ]
    remaining, reason = None, ""
    if metadata.state != "done":
        remaining, reason = _plan_remaining(metadata, store)
    status = StatusDocument(
        name=run,
        state=metadata.state,
        stages=tuple(stages),
        remaining=remaining,
        ledger=tuple(row for row in sum_spend(Path(metadata.ledger)) if row.run == run),
    )
    if as_json:
        print_document(status)
    else:
        render_plan.print_status(out, status)
    if reason:
        (err if as_json else out).print(reason, soft_wrap=True)


def _read_stage(entry: StageFolder, store: Path) -> StageStatus:
    artifact = Artifact(entry.stage, "", store / entry.folder)
    if not artifact.has_manifest:
        return StageStatus(stage=entry.stage, folder=entry.folder, state="missing")
    seconds = artifact.manifest.seconds
    status = StageStatus(stage=entry.stage, folder=entry.folder, state="done", seconds=seconds)
    if artifact.manifest.kind is not WorkKind.PAID:
        return status
    stats = artifact.read_stats(PurchaseStats).model_dump(include={*StageStatus.model_fields})
    return status.model_copy(update=stats)


def _plan_remaining(metadata: RunMetadata, store: Path) -> tuple[PlanDocument | None, str]:
    """Return the plan of the rest of a run, or the reason why there is none."""
    try:
        return build_plan_document(api.plan_remaining(metadata, store)), ""
    except InputError as exc:
        return None, f"Remaining cost unknown: {exc}"


def report_command(
    run: RunName, store: StorePath = Path("runs"), as_json: JsonFlag = False
) -> None:
    """Print the results of a finished run and the path of its report."""
    metadata = read_metadata(store, run)
    folders = {entry.stage: store / entry.folder for entry in metadata.stages}
    if "report" not in folders:
        raise InputError(
            f"Run {run!r} has no report: it is {metadata.state}. Run its recipe to the end."
        )
    folder = folders["report"]
    if not (folder / METRICS_FILE).is_file():
        raise InputError(f"{folder / METRICS_FILE} is missing. Run the recipe again to make it.")
    metrics = read_metrics(folder)
    if as_json:
        print_document(metrics)
    else:
        render_metrics.print_metrics(out, metrics, run)
    (err if as_json else out).print(f"Report: {folder / 'report.html'}", soft_wrap=True)
