"""How the trainings behind a comparison went: losses by their logs, validations by their facts."""

from collections.abc import Mapping, Sequence

from bridgekd import settings as of
from bridgekd.config import Train
from bridgekd.core.durations import WorkKind
from bridgekd.edges.rows import read_jsonl
from bridgekd.edges.store import Artifact, Stats, ancestors
from bridgekd.report.evidence import Training
from bridgekd.stages.cells import seed_of
from bridgekd.stages.naming import natural, title
from bridgekd.stages.stats import TrainStats

_LOG = "metrics.jsonl"  # written by lm.fine_tune beside the weights


class _Trained(Stats):
    """What the settings of all trainings have."""

    train: Train


def trainings_of(
    behind: Mapping[str, Artifact], labels: Mapping[str, str], shown: Mapping[str, Artifact]
) -> list[Training]:
    """Every training behind an evaluation, those of one kind together. `labels` names measured
    models by folder, `shown` is what the first seed and budget came from.
    """
    trained = [a for a in behind.values() if a.manifest.kind is WorkKind.TRAINING]
    several = len({_seed(a) for a in trained}) > 1
    made = [
        (a.manifest.title, _training(a, labels, several, a.path.name in shown)) for a in trained
    ]
    made.sort(key=lambda one: (one[0], natural(one[1].title)))
    return [training for _, training in made]


def model_labels(answers: Mapping[str, Sequence[Artifact]]) -> dict[str, str]:
    """Arms' titles by the folder of the model that answered; `answers` are predictions by label."""
    found: dict[str, list[str]] = {}
    for label, predictions in answers.items():
        for made in predictions:
            for model in made.get_inputs("model"):
                found.setdefault(model.path.name, []).append(title(label))
    return {folder: " and ".join(titles) for folder, titles in found.items()}


def _training(
    artifact: Artifact, labels: Mapping[str, str], several: bool, first: bool
) -> Training:
    stats = artifact.read_stats(TrainStats)
    name = labels.get(artifact.path.name, artifact.manifest.title)
    by_loss = artifact.read_settings(_Trained).train.held_out is not None
    sign = -1 if by_loss else 1  # early stopping asks for minus the loss
    return Training(
        title=f"{name}, seed {_seed(artifact)}" if several else name,
        folder=artifact.path.name,
        n_rows=stats.n_rows,
        n_too_long=stats.n_too_long,
        n_updates=stats.n_updates,
        best_update=stats.best_update,
        seconds=stats.seconds,
        losses=_losses(artifact),
        validations=tuple((update, sign * value) for update, value in stats.validations),
        by_loss=by_loss,
        first=first,
    )


def _losses(artifact: Artifact) -> tuple[tuple[int, float], ...]:
    """Empty for an artifact without a log."""
    log = artifact.path / _LOG
    if not log.is_file():
        return ()
    return tuple((row["update"], row["loss"]) for _, row in read_jsonl(log))


def _seed(artifact: Artifact) -> int:
    """The run's seed: that of the pool it was trained on; an instructed student's is its own."""
    pools = [a for a in ancestors(artifact).values() if a.stage == "load_pool"]
    return seed_of(pools) if pools else artifact.read_settings(of.Instruct).seed
