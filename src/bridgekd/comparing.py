"""A comparison: methods under several seeds and budgets over one store. A plain run is one of each.

The one idea: every seed and budget is the same run with another recipe, and the store finds what
they share. So a warm-up is made once a seed and not once a budget, and a question that two arms ask
is bought once.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from bridgekd.config import Amount, Recipe
from bridgekd.edges.store import Artifact
from bridgekd.errors import BadInput
from bridgekd.methods import method_named
from bridgekd.runs import Arms, Run

_AMOUNT: TypeAdapter[int | str] = TypeAdapter(Amount)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which methods, under which seeds and budgets (queries; None: the recipe's own)."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int | str | None, ...] = (None,)

    @property
    def n_variants(self) -> int:
        """How often each method is carried out."""
        return len(self.seeds) * len(self.budgets)

    @property
    def said_budgets(self) -> list[int | str]:
        """Budgets as `comparison` takes them; empty for the recipe's own."""
        return [b for b in self.budgets if b is not None]

    @property
    def asked(self) -> tuple[tuple[str, ...], int, list[int | str]]:
        """Methods, number of seeds and budgets: what a report says of it."""
        return self.methods, len(self.seeds), self.said_budgets

    def recipes(self, recipe: Recipe) -> Iterator[Recipe]:
        """The recipe under every seed and budget; all other limits of its budget stand."""
        for seed in self.seeds:
            for queries in self.budgets:
                budget = recipe.budget
                if queries is not None:
                    budget = budget.model_copy(update={"queries": queries})
                yield recipe.model_copy(update={"seed": seed, "budget": budget})


def comparison(
    recipe: Recipe,
    methods: Sequence[str] = (),
    n_seeds: int = 1,
    budgets: Sequence[int | float | str] = (),
) -> Comparison:
    """What was asked for, checked: seeds count up from the recipe's, budgets are as `budget_of`
    reads them. Nothing asked for is the recipe's own.
    """
    names = tuple(dict.fromkeys(methods or [recipe.method]))
    for name in names:
        method_named(name)
    if n_seeds < 1:
        raise BadInput(f"a comparison over {n_seeds} seeds measures nothing; give at least 1")
    amounts = tuple(budget_of(b) for b in budgets)
    if len(set(amounts)) < len(amounts):
        raise BadInput(f"a budget is named twice in {', '.join(map(str, budgets))}; name it once")
    return Comparison(names, tuple(range(recipe.seed, recipe.seed + n_seeds)), amounts or (None,))


def budget_of(said: int | float | str) -> int | str:
    """A budget in queries: `5%` or 0.05 is a share of the pool, 200 a number of questions."""
    text = str(said).strip()
    share = re.fullmatch(r"(0?\.\d+|1\.0*)", text)
    try:
        amount = _AMOUNT.validate_python(
            f"{100 * float(text):.10g}%" if share else int(text) if text.isdigit() else text
        )
    except ValidationError as exc:
        raise BadInput(
            f"{text!r} is no budget; write a share such as 0.05 or 5%, or a number of questions"
        ) from exc
    if amount in (0, "0%"):
        raise BadInput(f"a budget of {text} queries buys nothing; give more")
    return amount


def arms_of(run: Run, methods: Sequence[str]) -> Arms:
    """The models of all methods; what two methods both name is the same model."""
    return {name: arm for m in methods for name, arm in method_named(m)(run).items()}


def compare(run: Run, wanted: Comparison) -> Artifact:
    """Carries everything out and measures it: the evaluation over all arms, seeds and budgets.

    The teacher is measured once: another seed would change which questions it is asked, not how
    good it is.
    """
    found: dict[tuple[str, str], Artifact] = {}
    variants = [run.varied(recipe) for recipe in wanted.recipes(run.recipe)]
    for here in variants:
        for name, made in here.predicted(arms_of(here, wanted.methods)).items():
            found[name, made.path.name] = made  # once, however many budgets share it
    first = variants[0]
    found |= {(name, made.path.name): made for name, made in first.teacher_measured().items()}
    return first.evaluate([(name, made) for (name, _), made in found.items()])
