"""metrics.json on disk. The stage `evaluate` writes it, and the stage `report` copies it."""

from pathlib import Path

from bridgekd.io.damage import translate_damage
from bridgekd.stats.metrics import Metrics

METRICS_FILE = "metrics.json"


def write_metrics(folder: Path, metrics: Metrics) -> None:
    """Write metrics.json into a folder."""
    text = metrics.model_dump_json(indent=1)
    (folder / METRICS_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_metrics(folder: Path) -> Metrics:
    """Return the metrics in the folder of a stage `evaluate` or `report`.

    Raises InputError if the file is damaged or missing.
    """
    with translate_damage(folder / METRICS_FILE):
        return Metrics.model_validate_json((folder / METRICS_FILE).read_bytes())
