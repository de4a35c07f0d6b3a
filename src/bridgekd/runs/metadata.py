"""A finished run, read back: its file, its arms and what they were made from.

The arms are read from manifests and not by running the method again, so that they are found however
the recipe, the data or the methods have changed since.
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
from bridgekd.stages.predict import PredictSettings


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A local model of a run: its label in metrics.json, what is said of it, how it was asked."""

    name: str
    arm: ArmSettings
    model: Artifact
    predicted: PredictSettings

    @property
    def trained_on_rationales(self) -> bool:
        """Whether rationales are among its training data."""
        return bool(find_rationales(self.model))


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over. `ancestors` is everything that its evaluation came from, by folder."""

    metadata: RunMetadata
    recipe: Recipe
    evaluation: Artifact
    ancestors: Mapping[str, Artifact]
    arms: Mapping[str, EvaluatedModel]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.metadata.name

    @property
    def folder(self) -> Path:
        """The recipe's folder."""
        return Path(self.metadata.folder)

    def get_arm(self, name: str | None) -> EvaluatedModel:
        """Return the arm of that name that was trained on rationales; None is the result of the
        recipe's own method at its largest budget, else the last result. Raises InputError with the
        nearest names.
        """
        arms = {n: arm for n, arm in self.arms.items() if arm.trained_on_rationales}
        if not arms:
            raise InputError(
                f"no model of run {self.name!r} learnt from rationales; its arms: "
                f"{', '.join(self.arms)}"
            )
        if name is None:
            own = self.recipe.method.name
            by_preference = sorted(
                arms.values(), key=lambda m: (m.arm.is_result, m.arm.name == own)
            )
            return by_preference[-1]
        if name in arms:
            return arms[name]
        near = get_close_matches(name, arms, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        why = "learnt from no rationales" if name in self.arms else f"is unknown{hint}"
        raise InputError(f"arm {name!r} of {self.name} {why}; take one of {', '.join(arms)}")


def find_base_model(model: Artifact) -> Artifact:
    """Return what a model was trained from at first: a folder or a Hub id."""
    while model.has_manifest:
        model = model.get_input("model")
    return model


def find_rationales(model: Artifact) -> tuple[Artifact, ...]:
    """Return the rationales that a model was trained on."""
    return model.get_inputs("rationales")


def read_metadata(store: Path, name: str) -> RunMetadata:
    """Return what runs/<name>.json says. Raises InputError with the runs that are there."""
    path = store / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in store.glob("*.json"))) or "none"
        raise InputError(f"no run {name!r} in {store}; runs there: {known} (--store names another)")
    try:
        return RunMetadata.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise InputError(
            f"{path} is not of this version of bridgekd: {exc.errors()[0]['msg']}. Run the recipe "
            "again."
        ) from exc


def parse_recipe(metadata: RunMetadata) -> Recipe:
    """Return the recipe that a run was started with."""
    try:
        return Recipe.model_validate(metadata.recipe)
    except ValidationError as exc:
        raise InputError(
            f"its recipe is not one of this bridgekd: {exc.errors()[0]['msg']}"
        ) from exc


def load_finished_run(store: Path, name: str) -> FinishedRun:
    """Return a run that is over. InputError says how to resume one that is not."""
    metadata = read_metadata(store, name)
    if metadata.state != "done":
        raise InputError(
            f"Run {name!r} is {metadata.state}, not finished. Run its `bridgekd run` (or `compare`)"
            " command again to resume it."
        )
    recipe = parse_recipe(metadata)
    made = [Artifact(s.stage, s.folder.rpartition("-")[2], store / s.folder)
            for s in metadata.stages]  # fmt: skip
    for artifact in made:
        if not artifact.has_manifest:
            raise InputError(
                f"run {name!r} has lost {artifact.path}; run its recipe again to make it"
            )
    evaluations = [artifact for artifact in made if artifact.stage == evaluate.name]
    if not evaluations:
        raise InputError(f"run {name!r} measured no model to take; name a run of a method")
    evaluation = evaluations[-1]
    return FinishedRun(
        metadata, recipe, evaluation, find_ancestors(evaluation), _read_arms(evaluation)
    )


def _read_arms(evaluation: Artifact) -> dict[str, EvaluatedModel]:
    """The arms that are local models, in the evaluation's order and under the labels of its rows;
    of several seeds the first.
    """
    arms = evaluation.read_settings(EvaluateSettings).arms
    found = [
        (arm, find_budget(find_ancestors(made).values()), made)
        for arm, made in zip(arms, evaluation.get_inputs("predictions"), strict=True)
        if made.get_inputs("model")
    ]
    budgets: dict[str, set[str]] = {}
    for arm, budget, _ in found:
        budgets.setdefault(arm.name, set()).add(budget)
    models: dict[str, EvaluatedModel] = {}
    for arm, budget, made in found:
        label = f"{arm.name}@{budget}" if len(budgets[arm.name]) > 1 else arm.name
        predicted = made.read_settings(PredictSettings)
        model = EvaluatedModel(label, arm, made.get_input("model"), predicted)
        models.setdefault(label, model)
    return models
