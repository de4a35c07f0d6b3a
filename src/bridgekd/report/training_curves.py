"""The trainings of a run: losses from their logs, validations from their stats."""

from collections.abc import Mapping

from bridgekd.io.artifact_store import Artifact
from bridgekd.io.artifact_store import find_ancestors as ancestors_of
from bridgekd.io.row_files import read_jsonl
from bridgekd.report.purchases import make_natural_key
from bridgekd.report.report_data import TrainingSummary
from bridgekd.stages.arm_results import find_seed
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.train import TrainSettings
from bridgekd.throughput import WorkKind

_LOG = "training_log.jsonl"  # lm.fine_tune writes it beside the weights


def collect_trainings(
    ancestors: Mapping[str, Artifact],
    titles: Mapping[str, str],
    first: Mapping[str, Artifact],
) -> list[TrainingSummary]:
    """Return every training among `ancestors`, sorted by stage and title.

    `titles` are those of the evaluated models by folder; `first` are the ancestors of the first
    seed and budget.
    """
    trained = [a for a in ancestors.values() if a.manifest.kind is WorkKind.TRAINING]
    has_seeds = len({_find_seed(a) for a in trained}) > 1
    found = []
    for artifact in trained:
        stage_title = artifact.manifest.title
        title = titles.get(artifact.path.name, stage_title)
        title += f", seed {_find_seed(artifact)}" if has_seeds else ""
        summary = _summarize_training(artifact, title, is_first=artifact.path.name in first)
        found.append((stage_title, make_natural_key(title), summary))
    return [summary for _, _, summary in sorted(found, key=lambda entry: entry[:2])]


def _summarize_training(artifact: Artifact, title: str, is_first: bool) -> TrainingSummary:
    stats = artifact.read_stats(TrainStats)
    judged_by_loss = artifact.read_settings(TrainSettings).train.holdout_size is not None
    sign = -1 if judged_by_loss else 1  # early stopping maximizes minus the loss
    return TrainingSummary(
        title=title,
        n_updates=stats.n_updates,
        best_update=stats.best_update,
        losses=_read_losses(artifact),
        validations=tuple((update, sign * value) for update, value in stats.validations),
        judged_by_loss=judged_by_loss,
        is_first=is_first,
    )


def _read_losses(artifact: Artifact) -> tuple[tuple[int, float], ...]:
    log = artifact.path / _LOG
    if not log.is_file():
        return ()
    return tuple((row["update"], row["loss"]) for _, row in read_jsonl(log))


def _find_seed(artifact: Artifact) -> int:
    """The seed of the pool that it was trained on, or of its own settings without a pool."""
    pools = [a for a in ancestors_of(artifact).values() if a.stage == "load_pool"]
    return find_seed(pools) if pools else artifact.read_settings(TrainSettings).seed
