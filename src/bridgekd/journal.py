"""A finished run, read back: its journal, its arms and what they were made from.

The arms are read off manifests and not by running the method again, so that they are found however
the recipe, the data or the methods have changed since.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from bridgekd.config import Recipe
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.errors import BadInput
from bridgekd.settings import Evaluate, Predict
from bridgekd.stages.cells import budget_of

LEARNT = (
    "train_student",
    "train_with_mentor",
    "train_assistant",
)  # the stages that learn from rationales


@dataclass(frozen=True, slots=True)
class Measured:
    """A model that a run measured, and how it was asked."""

    name: str
    model: Artifact
    ask: Literal["explain", "answer"]
    max_new_tokens: int

    @property
    def learnt(self) -> bool:
        """Whether it was trained on rationales."""
        return self.model.stage in LEARNT


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is over. `behind` is everything its evaluation came from, by folder name."""

    name: str
    recipe: Recipe
    folder: Path  # the recipe's
    methods: tuple[str, ...]
    n_seeds: int
    budgets: tuple[int | str, ...]
    evaluation: Artifact
    behind: Mapping[str, Artifact]
    arms: Mapping[str, Measured]

    def arm(self, name: str | None) -> Measured:
        """The arm of that name that learnt from rationales; None is the student of the run's own
        method. BadInput has the nearest names.
        """
        learnt = {n: arm for n, arm in self.arms.items() if arm.learnt}
        if not learnt:
            raise BadInput(
                f"no model of run {self.name!r} learnt from rationales; its arms: "
                f"{', '.join(self.arms)}"
            )
        if name is None:
            own = [self.recipe.method, *self.methods]
            at_most = [n for m in own for n in reversed(learnt) if n.partition("@")[0] == m]
            return next(learnt[n] for n in (*at_most, *learnt))
        if name in learnt:
            return learnt[name]
        near = get_close_matches(name, learnt, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        why = "learnt from no rationales" if name in self.arms else f"is unknown{hint}"
        raise BadInput(f"arm {name!r} of {self.name} {why}; take one of {', '.join(learnt)}")

    def source(self, model: Artifact) -> Artifact:
        """What `model` was trained from at first: a folder or a Hub id."""
        while model.has_manifest:
            model = model.get_input("model")
        return model


def read_journal(store: Path, name: str) -> dict[str, Any]:
    """The journal of a run; BadInput names those that are there."""
    path = store / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in store.glob("*.json"))) or "none"
        raise BadInput(f"no run {name!r} in {store}; runs there: {known} (--store names another)")
    journal: dict[str, Any] = json.loads(path.read_text())
    return journal


def recipe_of(journal: Mapping[str, Any]) -> Recipe:
    """The recipe that a run was begun with."""
    try:
        return Recipe.model_validate(journal["recipe"])
    except ValidationError as exc:
        raise BadInput(f"its recipe is not one of this bridgekd: {exc.errors()[0]['msg']}") from exc


def finished(store: Path, name: str) -> Finished:
    """A run that is done; BadInput says how to go on with one that is not."""
    journal = read_journal(store, name)
    if journal["state"] != "done":
        raise BadInput(
            f"run {name!r} is {journal['state']}, not done; give its `bridgekd run` (or `compare`) "
            "command again, which goes on where it stopped"
        )
    recipe = recipe_of(journal)
    for entry in journal["stages"]:
        if not Artifact(entry["stage"], "", store / entry["folder"]).has_manifest:
            raise BadInput(
                f"run {name!r} has lost {store / entry['folder']}; run its recipe again to make it"
            )
    found = [entry["folder"] for entry in journal["stages"] if entry["stage"] == "evaluate"]
    if not found:
        raise BadInput(f"run {name!r} measured no model to take; name a run of a method")
    last = found[-1]
    evaluation = Artifact("evaluate", last.rpartition("-")[2], store / last)
    behind = ancestors(evaluation)
    return Finished(
        name=name,
        recipe=recipe,
        folder=Path(journal["folder"]),
        methods=tuple(journal["methods"]),
        n_seeds=journal.get("seeds", 1),
        budgets=tuple(journal.get("budgets", ())),
        evaluation=evaluation,
        behind=behind,
        arms=_arms(evaluation),
    )


def rationales_of(model: Artifact) -> tuple[Artifact, ...]:
    """What a model learnt its rationales from."""
    return model.get_inputs("rationales")


def _arms(evaluation: Artifact) -> dict[str, Measured]:
    """The evaluation's arms that are local models, in its order and under the names of its rows; of
    several seeds the first.
    """
    names = evaluation.read_settings(Evaluate).arms
    found = [
        (name, budget_of(ancestors(measured).values()), measured)
        for name, measured in zip(names, evaluation.get_inputs("predictions"), strict=True)
        if measured.stage == "predict"
    ]
    budgets: dict[str, set[str]] = {}
    for name, budget, _ in found:
        budgets.setdefault(name, set()).add(budget)
    arms: dict[str, Measured] = {}
    for name, budget, measured in found:
        label = f"{name}@{budget}" if len(budgets[name]) > 1 else name
        asked, model = measured.read_settings(Predict), measured.get_input("model")
        arms.setdefault(label, Measured(label, model, asked.ask, asked.max_new_tokens))
    return arms
