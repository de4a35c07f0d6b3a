"""The trainings of a run: losses from their logs, validations from their stats."""

from collections.abc import Mapping, Sequence

from bridgekd import settings as of
from bridgekd.config import Train
from bridgekd.core.durations import WorkKind
from bridgekd.edges.rows import read_jsonl
from bridgekd.edges.store import Artifact, Stats
from bridgekd.edges.store import ancestors as ancestors_of
from bridgekd.report.report_data import TrainingSummary
from bridgekd.report.titles import get_title, make_natural_key
from bridgekd.stages.cells import seed_of
from bridgekd.stages.stats import TrainStats

_LOG = "metrics.jsonl"  # lm.fine_tune writes it beside the weights


class _TrainSettings(Stats):
    """What the settings of all trainings have."""

    train: Train


def collect_trainings(
    ancestors: Mapping[str, Artifact],
    predictions: Mapping[str, Sequence[Artifact]],
    first: Mapping[str, Artifact],
) -> list[TrainingSummary]:
    """Return every training among `ancestors`, sorted by stage and title.

    `predictions` by label name the evaluated models; `first` are the ancestors of the first seed
    and budget.
    """
    trained = [a for a in ancestors.values() if a.manifest.kind is WorkKind.TRAINING]
    has_seeds = len({_find_seed(a) for a in trained}) > 1
    titles = label_models(predictions)
    found = []
    for artifact in trained:
        stage_title = artifact.manifest.title
        title = titles.get(artifact.path.name, stage_title)
        title += f", seed {_find_seed(artifact)}" if has_seeds else ""
        summary = _summarize_training(artifact, title, is_first=artifact.path.name in first)
        found.append((stage_title, make_natural_key(title), summary))
    return [summary for _, _, summary in sorted(found, key=lambda entry: entry[:2])]


def label_models(predictions: Mapping[str, Sequence[Artifact]]) -> dict[str, str]:
    """Return the titles of the arms by the folder of their model."""
    titles: dict[str, list[str]] = {}
    for label, artifacts in predictions.items():
        for artifact in artifacts:
            for model in artifact.get_inputs("model"):
                titles.setdefault(model.path.name, []).append(get_title(label))
    return {folder: " and ".join(names) for folder, names in titles.items()}


def _summarize_training(artifact: Artifact, title: str, is_first: bool) -> TrainingSummary:
    stats = artifact.read_stats(TrainStats)
    judged_by_loss = artifact.read_settings(_TrainSettings).train.held_out is not None
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
    return seed_of(pools) if pools else artifact.read_settings(of.Instruct).seed
