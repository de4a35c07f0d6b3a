"""Which questions to pay for: a ranking of the pool."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bridgekd.cost.budget_slice import FULL_BUDGET, BudgetSlice, resolve_questions, slice_amount
from bridgekd.cost.rationale_cost import forecast_rationale_costs
from bridgekd.grading.grade import FilterName, check_rationale, join_reasoning
from bridgekd.io.artifact_store import Artifact, Planned, Stats, stage
from bridgekd.io.damage import translate_damage
from bridgekd.io.lazy_rows import open_rows
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_pool
from bridgekd.io.row_files import read_column, write_columns
from bridgekd.recipe import CountOrPercent, Recipe, SparseModel
from bridgekd.records import Completion, Example, Pick, Score
from bridgekd.selection.check_recipe import check_mixture, check_per_dollar, check_strategy
from bridgekd.selection.diversity import center_embeddings
from bridgekd.selection.mixture import GroupEvidence, compute_shares
from bridgekd.selection.mixtures import MIXTURES
from bridgekd.selection.quotas import QuotaGroups
from bridgekd.selection.ranking import rank_normalize
from bridgekd.selection.representativeness import SelectionCheck, compare_with_random
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool
from bridgekd.stages.group_evidence import (
    count_mixture_samples,
    needs_losses,
    read_evidence,
    resolve_mixture,
)
from bridgekd.stages.run_context import RunContext
from bridgekd.variants import VariantRef, VariantSettings


class SelectSettings(SparseModel):
    strategy: VariantSettings
    quotas: QuotaGroups | None = None
    mixture: VariantSettings | None = None
    per_dollar: FilterName | None = None  # the filter of the rationales that are worth their cost
    queries: CountOrPercent | None
    n_samples: int = 1  # calls per question
    budget_slice: BudgetSlice
    center_embeddings: bool
    seed: int

    OPTIONAL = ("quotas", "mixture", "per_dollar", "n_samples")

    def count_selected(self, n_pool: int) -> int:
        """Return the number of questions to select from a pool."""
        n = resolve_questions(self.queries, n_pool, self.n_samples)
        return slice_amount(n, self.budget_slice)


class SelectStats(Stats):
    """Distances are from the pool to the nearest pick. `n_filled` picks are not the strategy's."""

    n_selected: int
    n_filled: int = 0
    mean_distance: float | None = None
    max_distance: float | None = None


def build_select_settings(
    recipe: Recipe,
    folder: Path,
    *,
    strategy: VariantRef | None = None,
    mixture: VariantRef | None = None,
    budget_slice: BudgetSlice = FULL_BUDGET,
    queries: CountOrPercent | None = None,
) -> SelectSettings:
    """Return what a selection depends on; by default, the recipe's own strategy and budget.

    Options that the strategy does not use are constants, so that changing them redoes nothing. The
    recipe's quotas and mixture are those of its own strategy. `mixture` sets quotas by domain.
    """
    resolved = STRATEGIES.resolve(strategy or recipe.select.strategy, folder)
    variant = STRATEGIES.load(resolved)
    quotas = recipe.select.quotas if strategy is None else None
    if mixture is not None:
        quotas = "domain"
    check_strategy(recipe, variant, quotas)
    shares = resolve_mixture(mixture or recipe.select.mixture, folder)
    if mixture is None and strategy is not None:
        shares = None
    if mixture is None and shares is not None:
        check_mixture(recipe, MIXTURES.load(shares), MIXTURES.parse_options(shares))
    is_per_dollar = recipe.select.per_dollar and strategy is None
    if is_per_dollar:
        check_per_dollar(recipe, variant)
    is_centered = recipe.select.embedding_transform != "none"
    return SelectSettings(
        strategy=resolved,
        quotas=quotas,
        mixture=shares,
        per_dollar=recipe.check.filter if is_per_dollar else None,
        queries=recipe.budget.queries if queries is None else queries,
        n_samples=recipe.teacher.n_samples,
        budget_slice=budget_slice,
        center_embeddings=is_centered or not (variant.needs_embeddings or quotas == "cluster"),
        seed=recipe.seed if variant.uses_seed else 0,
    )


@stage(version=3, title="Selection")
def select_questions(
    output_dir: Path,
    settings: SelectSettings,
    ctx: RunContext,
    pool: Artifact,
    scores: Artifact | None = None,
    embeddings: Artifact | None = None,
    earlier: Sequence[Artifact] = (),
    *,
    samples: Artifact | None = None,
    losses: Sequence[Artifact] = (),
) -> SelectStats:
    """Write the selected questions in the order of picking, then the rest.

    `embeddings` replace those of the scores. The ranking leaves out the questions of the `earlier`
    purchases, and new picks keep their distance from them. A mixture needs `samples` of the
    untouched assistant, or the `losses` of student and assistant.
    """
    ids, domains = (read_column(pool.path / "pool.parquet", Example, n) for n in ("id", "domain"))
    difficulty, vectors = np.zeros(len(ids)), np.empty((len(ids), 0), dtype=np.float32)
    if scores is not None:
        difficulty = np.array(read_column(scores.path / "scores.parquet", Score, "difficulty"))
    file = find_embeddings(embeddings, scores)
    if file is not None:
        vectors = load_embeddings(file)
        vectors = center_embeddings(vectors) if settings.center_embeddings else vectors
    purchases = [a.path / "completions.parquet" for a in earlier]
    ranking = rank_pool(
        STRATEGIES.load(settings.strategy),
        STRATEGIES.parse_options(settings.strategy),
        ids,
        difficulty,
        vectors,
        domains=domains,
        already_queried={id for path in purchases for id in read_column(path, Completion, "id")},
        quotas=settings.quotas,
        costs=_forecast_costs(settings.per_dollar, pool, difficulty, earlier),
        mix=_build_mix(settings, read_evidence(pool, samples, losses)),
        n_selected=settings.count_selected(len(ids)),
        seed=settings.seed,
    )
    write_columns(output_dir / "ranking.parquet", Pick, ranking.to_columns(ids))
    distance = None if scores is None or file is None else ranking.distance_to_selection
    return SelectStats(
        n_selected=ranking.n_selected,
        n_filled=ranking.n_filled,
        mean_distance=None if distance is None else round(float(distance.mean()), 6),
        max_distance=None if distance is None else round(float(distance.max()), 6),
    )


def _forecast_costs(
    rule: FilterName | None, pool: Artifact, difficulty: np.ndarray, earlier: Sequence[Artifact]
) -> np.ndarray | None:
    """Return what a kept rationale is forecast to cost, [n]; None without a `rule` that keeps it.

    Similar questions are those of one domain and one third of the pool by difficulty.
    """
    if rule is None:
        return None
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    thirds = np.minimum(2, np.floor(3 * rank_normalize(difficulty))).astype(np.int64)
    domains = np.unique([example.domain for example in examples], return_inverse=True)[1]
    files = (purchase.path / "completions.parquet" for purchase in earlier)
    queried = [row for file in files for row in open_rows(file, Completion)]
    example_of = index_by_id(examples, (c.id for c in queried))
    row_of = {example.id: row for row, example in enumerate(examples)}
    checked = [
        check_rationale(
            example_of[c.id], join_reasoning(c.text, c.reasoning), answer_type, "teacher", rule,
            state=c.state,
        )
        for c in queried
    ]  # fmt: skip
    return forecast_rationale_costs(
        3 * domains + thirds,
        np.array([row_of[c.id] for c in queried], dtype=np.int64),
        np.array([c.cost_microusd for c in queried], dtype=float),
        np.array([rationale.kept for rationale in checked], dtype=bool),
    )


def _build_mix(
    settings: SelectSettings, columns: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return the function from rows [m] and their groups [m] to the shares of the groups [g]."""
    if settings.mixture is None:
        return None
    mixture, options = MIXTURES.load(settings.mixture), MIXTURES.parse_options(settings.mixture)

    def mix(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        taken = {name: column[rows] for name, column in columns.items()}
        evidence = GroupEvidence(groups, progress=settings.budget_slice[0], **taken)
        return compute_shares(mixture, evidence, options)

    return mix


def find_embeddings(*artifacts: Artifact | None) -> Path | None:
    """Return the first embedding file of the artifacts. Scores from a server have none."""
    files = [a.path / "embeddings.npy" for a in artifacts if a is not None]
    return next((file for file in files if file.is_file()), None)


def load_embeddings(file: Path) -> np.ndarray:
    """Return the embeddings [n, d] of a file of `find_embeddings`, which is read when needed."""
    with translate_damage(file):
        return np.asarray(np.load(file, mmap_mode="r"))


def check_selection(ranking: Artifact) -> SelectionCheck | None:
    """Return how a selection that is made compares with random ones; None for another ranking.

    Questions of earlier purchases are not in a ranking, so they do not count.
    """
    if ranking.stage != select_questions.name:
        return None
    picks = ranking.path / "ranking.parquet"
    ranked, selected = (read_column(picks, Pick, name) for name in ("id", "is_selected"))
    is_selected = dict(zip(ranked, selected, strict=True))
    pool = ranking.get_input("pool").path / "pool.parquet"
    ids, *groups = (read_column(pool, Example, name) for name in ("id", "domain", "answer"))
    rows = np.array([row for row, id in enumerate(ids) if id in is_selected], dtype=np.int64)
    sources = (*ranking.get_inputs("embeddings"), *ranking.get_inputs("scores"))
    file, embeddings = find_embeddings(*sources), None
    if file is not None:
        embeddings = load_embeddings(file)
        embeddings = embeddings if len(rows) == len(ids) else embeddings[rows]
    return compare_with_random(
        np.array([is_selected[ids[row]] for row in rows], dtype=bool),
        {
            title: np.array([values[row] or "" for row in rows])
            for title, values in zip(("domains", "gold answers"), groups, strict=True)
        },
        embeddings,
        ranking.read_settings(SelectSettings).seed,
    )


def rank_without_models(
    source: Planned, select: SelectSettings, pool: Sequence[Example]
) -> Sequence[str] | None:
    """Return the ids of the pool in the order of a strategy that needs no model; else None.

    A later round leaves out the questions of an earlier one, which a plan does not know.
    """
    strategy = STRATEGIES.load(select.strategy)
    if strategy.needs_difficulty or strategy.needs_embeddings or not strategy.is_nested:
        return None
    if select.quotas == "cluster" or "earlier" in source.inputs:
        return None
    if select.mixture and (count_mixture_samples(select.mixture) or needs_losses(select.mixture)):
        return None
    ids = [e.id for e in pool]
    ranking = rank_pool(
        strategy,
        STRATEGIES.parse_options(select.strategy),
        ids,
        np.zeros(len(ids)),
        np.empty((len(ids), 0), dtype=np.float32),
        domains=[e.domain for e in pool],
        quotas=select.quotas,
        mix=_build_mix(select, {}),
        n_selected=select.count_selected(len(ids)),
        seed=select.seed,
    )
    return [ids[row] for row in ranking.rows]


def name_prefix_group(source: Planned, select: SelectSettings) -> str:
    """Return a name that purchases share if they begin with the same questions."""
    is_nested = STRATEGIES.load(select.strategy).is_nested and select.quotas is None
    if not is_nested or "earlier" in source.inputs:
        return source.artifact.path.name
    same = select.model_copy(update={"queries": None, "budget_slice": FULL_BUDGET})
    made_from = (artifact.fingerprint for artifact in chain(*source.inputs.values()))
    return " ".join([same.model_dump_json(), *made_from])
