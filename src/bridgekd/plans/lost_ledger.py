"""Notice that a ledger was lost: the store has purchases of its runs, and the ledger is empty."""

from os.path import relpath
from pathlib import Path

from bridgekd.cost.request_cost import format_microusd
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.ledger.usage_history import is_empty
from bridgekd.runs.metadata import read_metadata
from bridgekd.runs.run import RunMetadata
from bridgekd.stages.stats import PurchaseStats
from bridgekd.throughput import WorkKind


def describe_lost_ledger(store: Path, ledger: Path, folder: Path) -> str:
    """Return a warning if the runs of a store paid for answers that their ledger does not have.

    folder: the recipe's. Returns "" if no answer is missing. Raises InputError if the file is not a
    ledger.
    """
    if not is_empty(ledger):
        return ""
    spent: dict[str, int] = {}
    for file in sorted(store.glob("*.json")):
        try:
            metadata = read_metadata(store, file.stem)
            # Relative paths, because the folder may have been moved or copied without its ledger.
            if relpath(metadata.ledger, metadata.folder) == relpath(ledger, folder):
                spent |= _read_spend(metadata, store)
        except InputError:  # a damaged run: its own commands report it
            continue
    if not (total := sum(spent.values())):
        return ""
    return (
        f"Ledger {ledger} has no answers, but runs in {store} bought {format_microusd(total)} of "
        "them. If the ledger was moved or removed, restore it first: what it has is not bought "
        "again."
    )


def _read_spend(metadata: RunMetadata, store: Path) -> dict[str, int]:
    """Return the new spend of the paid stages of a run by their folders."""
    artifacts = (Artifact(entry.stage, "", store / entry.folder) for entry in metadata.stages)
    return {
        artifact.path.name: artifact.read_stats(PurchaseStats).new_spend_microusd
        for artifact in artifacts
        if artifact.has_manifest and artifact.manifest.kind is WorkKind.PAID
    }
