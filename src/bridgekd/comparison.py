"""A comparison: methods under several seeds and budgets over one store. A plain run is one of each.

The one idea: every seed and budget is the same run with another recipe, and the store finds what
the runs share. So a warm-up is trained once per seed and not once per budget, and a question of two
arms is paid for once.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError

from bridgekd.errors import InputError
from bridgekd.io.artifact_store import Artifact
from bridgekd.messages import format_value
from bridgekd.methods import METHODS
from bridgekd.recipe import CountOrPercent, Recipe
from bridgekd.runs.figures import make_figures
from bridgekd.runs.run import Arm, Run
from bridgekd.stages.arm_results import ArmSettings
from bridgekd.stages.evaluate import EvaluateSettings, evaluate
from bridgekd.variants import VariantRef, VariantSettings

MethodName = str | Mapping[str, JsonValue] | VariantRef  # a name, a .py file, or with options
_AMOUNT: TypeAdapter[int | str] = TypeAdapter(CountOrPercent)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods, seeds and budgets. A budget is a limit of queries; None is the recipe's own."""

    methods: tuple[VariantRef, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int | str | None, ...] = (None,)

    @property
    def n_variants(self) -> int:
        """The number of runs of each method."""
        return len(self.seeds) * len(self.budgets)

    @property
    def budget_labels(self) -> list[int | str]:
        """Budgets as `parse_comparison` takes them; empty for the recipe's own."""
        return [b for b in self.budgets if b is not None]

    def iter_recipes(self, recipe: Recipe) -> Iterator[Recipe]:
        """Yield the recipe under every seed and budget. Other limits of its budget stay."""
        for seed in self.seeds:
            for queries in self.budgets:
                budget = recipe.budget
                if queries is not None:
                    budget = budget.model_copy(update={"queries": queries})
                yield recipe.model_copy(update={"seed": seed, "budget": budget})

    def format_command(self, recipe: Recipe) -> str:
        """Return the command that reproduces it, for a recipe in a file of the run's name."""
        file = shlex.quote(f"{recipe.name}.yaml")
        if self == Comparison((recipe.method,), (recipe.seed,)):
            return f"bridgekd run {file}"
        arms = ",".join(map(_format_ref, self.methods))
        command = f"bridgekd compare {file} --arms {shlex.quote(arms)}"
        if len(self.seeds) > 1:
            command += f" --seeds {len(self.seeds)}"
        if self.budget_labels:
            command += f" --budgets {','.join(map(str, self.budget_labels))}"
        return command


def parse_comparison(
    recipe: Recipe,
    folder: Path,
    methods: Sequence[MethodName] = (),
    n_seeds: int = 1,
    budgets: Sequence[int | float | str] = (),
) -> Comparison:
    """Return a checked comparison. By default it is the recipe's own method, seed and budget.

    A method is a name, a file that ends in .py (relative to `folder`), or either with options; the
    recipe's own method keeps its options. Seeds count up from the recipe's. Budgets are as in
    `parse_budget`. Raises InputError.
    """
    refs = [_parse_method(method, recipe) for method in methods] or [recipe.method]
    unique = {METHODS.resolve(ref, folder).model_dump_json(): ref for ref in refs}
    if n_seeds < 1:
        raise InputError(f"A comparison over {n_seeds} seeds has no result. Use at least 1.")
    amounts = tuple(parse_budget(b) for b in budgets)
    if len(set(amounts)) < len(amounts):
        raise InputError(f"Duplicate budget in {', '.join(map(str, budgets))}. Name each once.")
    seeds = tuple(range(recipe.seed, recipe.seed + n_seeds))
    return Comparison(tuple(unique.values()), seeds, amounts or (None,))


def parse_budget(value: int | float | str) -> int | str:
    """Return a budget of queries as a count or a percentage of the pool.

    >>> [parse_budget(value) for value in ("5%", 0.05, "200")]
    ['5%', '5%', 200]
    """
    text = str(value).strip()
    is_fraction = re.fullmatch(r"(0?\.\d+|1\.0*)", text)
    try:
        amount = _AMOUNT.validate_python(
            f"{100 * float(text):.10g}%" if is_fraction else int(text) if text.isdigit() else text
        )
    except ValidationError as exc:
        raise InputError(
            f"{format_value(text)} is not a budget. Write a fraction such as 0.05 or 5%, or a "
            "number of questions."
        ) from exc
    if amount in (0, "0%"):
        raise InputError(f"A budget of {text} queries buys nothing. Raise it.")
    return amount


def resolve_methods(run: Run, methods: Sequence[VariantRef]) -> list[VariantSettings]:
    """Return the methods with all their options, and the hash of a file's code."""
    return [METHODS.resolve(ref, run.folder) for ref in methods]


def build_arms(run: Run, methods: Sequence[VariantRef]) -> list[Arm]:
    """Return the models of all methods: assistants, students, then the results by the ranks of
    their methods. Raises InputError if two methods use one name for different models.
    """
    arms: dict[str, Arm] = {}
    ranks: dict[str, int] = {}
    for settings in resolve_methods(run, methods):
        method = METHODS.load(settings)
        for arm in method.build(run, METHODS.parse_options(settings)):
            if arms.setdefault(arm.name, arm).model != arm.model:
                raise InputError(
                    f"Two methods have an arm {arm.name!r} with different models. Compare them in "
                    "two runs, or give one of them another name."
                )
            ranks[arm.name] = max(method.rank, ranks.get(arm.name, 0))
    return sorted(
        arms.values(),
        key=lambda arm: (arm.is_result, arm.role == "student", arm.step, ranks[arm.name]),
    )


def run_comparison(run: Run, comparison: Comparison) -> Artifact:
    """Run everything and return the evaluation over all arms, seeds and budgets.

    The teacher is evaluated once: another seed would change its questions, not how good it is.
    """
    predictions: dict[tuple[str, str], tuple[ArmSettings, Artifact]] = {}
    figures: dict[str, Artifact] = {}
    variants = [run.with_recipe(recipe) for recipe in comparison.iter_recipes(run.recipe)]
    for variant in variants:
        arms = build_arms(variant, comparison.methods)
        for arm, artifact in zip(arms, variant.predict_all(arms), strict=True):
            # Budgets that share an artifact share its row.
            predictions[arm.name, artifact.path.name] = (arm.settings, artifact)
        figures |= {artifact.path.name: artifact for artifact in make_figures(variant, arms)}
    first = variants[0]
    rows = [*first.evaluate_teacher(), *predictions.values()]
    settings = EvaluateSettings(
        arms=tuple(arm for arm, _ in rows), step_checker=run.recipe.evaluate.step_checker
    )
    artifacts = [artifact for _, artifact in rows]
    return first.make(
        evaluate, settings, first.load_test(), *artifacts, figures=list(figures.values())
    )


def report_comparison(run: Run, comparison: Comparison, evaluation: Artifact) -> Artifact:
    """Return the report of a comparison."""
    methods = resolve_methods(run, comparison.methods)
    command = comparison.format_command(run.recipe)
    return run.report(evaluation, methods, comparison.n_variants, command)


def _parse_method(method: MethodName, recipe: Recipe) -> VariantRef:
    if isinstance(method, str) and method.endswith(".py"):
        method = {"file": method}
    ref = VariantRef.model_validate(method)
    is_own = (ref.name, ref.file) == (recipe.method.name, recipe.method.file)
    return recipe.method if is_own and not ref.options else ref


def _format_ref(ref: VariantRef) -> str:
    named = {"file": ref.file} if ref.file is not None else {"name": ref.name}
    options = ", ".join(f"{key}: {value}" for key, value in {**named, **ref.options}.items())
    return f"{{{options}}}" if ref.options else str(ref.file or ref.name)
