"""The trainings of a run: losses from their logs, evaluations from their stats."""

from collections.abc import Mapping

from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.io.damage import translate_damage
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

    titles: of the evaluated models, by folder. first: the ancestors of the first seed and budget.
    """
    seeds = {
        a.path.name: _find_seed(a)
        for a in ancestors.values()
        if a.manifest.kind is WorkKind.TRAINING
    }
    suffix = ", seed {}" if len(set(seeds.values())) > 1 else ""
    rows = []
    for folder, seed in seeds.items():
        artifact = ancestors[folder]
        title = titles.get(folder, artifact.manifest.title) + suffix.format(seed)
        summary = _summarize_training(artifact, title, is_first=folder in first)
        rows.append((artifact.manifest.title, make_natural_key(title), summary))
    return [summary for _, _, summary in sorted(rows, key=lambda row: row[:2])]


def _summarize_training(artifact: Artifact, title: str, is_first: bool) -> TrainingSummary:
    stats = artifact.read_stats(TrainStats)
    has_eval_loss = artifact.read_settings(TrainSettings).train.holdout_size is not None
    sign = -1 if has_eval_loss else 1  # early stopping maximizes minus the loss
    log = artifact.path / _LOG
    with translate_damage(log):
        rows = read_jsonl(log) if log.is_file() else ()
        losses = tuple((int(row["update"]), float(row["loss"])) for _, row in rows)
    return TrainingSummary(
        title=title,
        n_updates=stats.n_updates,
        best_update=stats.best_update,
        losses=losses,
        validations=tuple((update, sign * value) for update, value in stats.validations),
        has_eval_loss=has_eval_loss,
        is_first=is_first,
    )


def _find_seed(artifact: Artifact) -> int:
    """Return the seed of the pool of a training, or of its own settings if it has no pool."""
    pools = [a for a in find_ancestors(artifact).values() if a.stage == "load_pool"]
    return find_seed(pools) if pools else artifact.read_settings(TrainSettings).seed
