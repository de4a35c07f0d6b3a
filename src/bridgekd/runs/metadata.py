"""A finished run: its file, its arms and their ancestors.

The arms come from manifests. The method does not run again, so a later change of the recipe, the
data or the method does not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact, find_ancestors
from bridgekd.recipe import Recipe
from bridgekd.runs.run import RunMetadata
from bridgekd.stages.arm_results import ArmSettings, find_budget
from bridgekd.stages.evaluate import EvaluateSettings, evaluate
from bridgekd.stages.predict import PredictSettings, PredictStats


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A local model of a run. `name` is its label in metrics.json, and `max_new_tokens` limited the
    texts that were measured.
    """

    name: str
    arm: ArmSettings
    model: Artifact
    predicted: PredictSettings
    max_new_tokens: int

    @property
    def trained_on_rationales(self) -> bool:
        """Whether its training data has rationales."""
        return bool(self.model.get_inputs("rationales"))


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run. `ancestors` has every ancestor of its evaluation, by folder."""

    metadata: RunMetadata
    recipe: Recipe
    evaluation: Artifact
    ancestors: Mapping[str, Artifact]
    arms: Mapping[str, EvaluatedModel]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.metadata.name

    @property
    def folder(self) -> Path:
        """The folder of the recipe."""
        return Path(self.metadata.folder)

    def get_arm(self, name: str | None) -> EvaluatedModel:
        """Return the arm of this name. None: the result of the recipe's method at its largest
        budget, or else the last result. Raises InputError unless the arm has rationales.
        """
        arms = {n: arm for n, arm in self.arms.items() if arm.trained_on_rationales}
        if not arms:
            raise InputError(
                f"No model of run {self.name!r} was trained on rationales. Its arms: "
                f"{', '.join(self.arms)}."
            )
        if name is None:
            own = self.recipe.method.name
            return max(reversed(arms.values()), key=lambda m: (m.arm.is_result, m.arm.name == own))
        if name in arms:
            return arms[name]
        near = get_close_matches(name, arms, n=1)
        cause = f"is unknown. Did you mean {near[0]!r}?" if near else "is unknown."
        if name in self.arms:
            cause = "was not trained on rationales."
        raise InputError(f"Arm {name!r} of run {self.name!r} {cause} Choose: {', '.join(arms)}.")


def find_base_model(model: Artifact) -> Artifact:
    """Return the base model that a model was trained from: a folder or a Hub id."""
    while model.has_manifest:
        model = model.get_input("model")
    return model


def read_metadata(store: Path, name: str) -> RunMetadata:
    """Return the content of runs/<name>.json. Raises InputError with the names of all runs."""
    path = store / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in store.glob("*.json"))) or "none"
        raise InputError(
            f"There is no run {name!r} in {store}. Its runs: {known}. --store sets another store."
        )
    try:
        return RunMetadata.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as exc:
        reason = exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else exc.strerror
        raise InputError(
            f"{path} is damaged or from another version of bridgekd: {reason}. Run the recipe "
            "again, which writes it: finished stages and paid answers are reused."
        ) from exc


def parse_recipe(metadata: RunMetadata) -> Recipe:
    """Return the recipe that a run was started with."""
    try:
        return Recipe.model_validate(metadata.recipe)
    except ValidationError as exc:
        raise InputError(
            f"The recipe of run {metadata.name!r} is from another version of bridgekd: "
            f"{exc.errors()[0]['msg']}. Run the recipe again."
        ) from exc


def load_finished_run(store: Path, name: str) -> FinishedRun:
    """Return a finished run. Raises InputError for any other run, and for a missing folder."""
    metadata = read_metadata(store, name)
    if metadata.state != "done":
        raise InputError(
            f"Run {name!r} is {metadata.state}, not finished. Run its `bridgekd run` (or `compare`)"
            " command again to resume it."
        )
    recipe, evaluation = parse_recipe(metadata), None
    for entry in metadata.stages:
        fingerprint = entry.folder.rpartition("-")[2]
        artifact = Artifact(entry.stage, fingerprint, store / entry.folder)
        if not artifact.has_manifest:
            raise InputError(f"{artifact.path} of run {name!r} is missing. Run its recipe again.")
        if entry.stage == evaluate.name:
            evaluation = artifact
    if evaluation is None:
        raise InputError(f"Run {name!r} has no evaluated model. Name the run of a method.")
    ancestors, arms = find_ancestors(evaluation), _read_arms(evaluation)
    return FinishedRun(metadata, recipe, evaluation, ancestors, arms)


def _read_arms(evaluation: Artifact) -> dict[str, EvaluatedModel]:
    """Return the local models by the labels of their rows, in the order of the evaluation.

    An arm with several seeds is represented by its first seed.
    """
    arms = evaluation.read_settings(EvaluateSettings).arms
    rows = [
        (arm, find_budget(find_ancestors(predictions).values()), predictions)
        for arm, predictions in zip(arms, evaluation.get_inputs("predictions"), strict=True)
        if predictions.get_inputs("model")
    ]
    budgets: dict[str, set[str]] = {}
    for arm, budget, _ in rows:
        budgets.setdefault(arm.name, set()).add(budget)
    models: dict[str, EvaluatedModel] = {}
    for arm, budget, predictions in rows:
        label = f"{arm.name}@{budget}" if len(budgets[arm.name]) > 1 else arm.name
        settings = predictions.read_settings(PredictSettings)
        limit = predictions.read_stats(PredictStats).max_new_tokens
        model = EvaluatedModel(label, arm, predictions.get_input("model"), settings, limit)
        models.setdefault(label, model)
    return models
