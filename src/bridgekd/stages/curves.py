"""How the trainings behind a comparison went: losses by their logs, validations by their facts."""

from collections.abc import Mapping, Sequence

from bridgekd.edges.rows import read_jsonl
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.report.evidence import Training
from bridgekd.stages.naming import STAGES, natural, title

_LOG = "metrics.jsonl"  # written by lm.fine_tune beside the weights


def trainings_of(
    behind: Mapping[str, Artifact], labels: Mapping[str, str], shown: Mapping[str, Artifact]
) -> list[Training]:
    """Every training behind an evaluation, those of one kind together. `labels` names measured
    models by folder, `shown` is what the first seed and budget came from.
    """
    trained = [a for a in behind.values() if "best_update" in a.facts]
    several = len({_seed(a) for a in trained}) > 1
    order = list(STAGES)
    made = [(a.stage, _training(a, labels, several, a.path.name in shown)) for a in trained]
    made.sort(key=lambda one: (order.index(one[0]), natural(one[1].title)))
    return [training for _, training in made]


def model_labels(answers: Mapping[str, Sequence[Artifact]]) -> dict[str, str]:
    """Arms' titles by the folder of the model that answered; `answers` are predictions by label."""
    found: dict[str, list[str]] = {}
    for label, predictions in answers.items():
        for made in predictions:
            if made.stage == "predict":
                found.setdefault(made.inputs[2].path.name, []).append(title(label))
    return {folder: " and ".join(titles) for folder, titles in found.items()}


def _training(
    artifact: Artifact, labels: Mapping[str, str], several: bool, first: bool
) -> Training:
    facts, settings = artifact.facts, artifact.manifest["settings"]
    name = labels.get(artifact.path.name, STAGES[artifact.stage])
    by_loss = settings["train"]["held_out"] is not None
    sign = -1 if by_loss else 1  # early stopping asks for minus the loss
    return Training(
        title=f"{name}, seed {_seed(artifact)}" if several else name,
        folder=artifact.path.name,
        n_rows=facts["n_rows"],
        n_too_long=facts["n_too_long"],
        n_updates=facts["n_updates"],
        best_update=facts["best_update"],
        seconds=facts["seconds"],
        losses=_losses(artifact),
        validations=tuple((update, sign * value) for update, value in facts["validations"]),
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
    settings = (pools[0] if pools else artifact).manifest["settings"]
    return int(settings["seed"])
