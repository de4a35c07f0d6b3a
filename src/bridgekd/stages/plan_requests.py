"""Which requests a paid stage would send, found out without sending any.

Every paid stage names one of these functions (`@stage(..., plan_requests=...)`), so a plan knows no
stage and no method by name. What is known already is used exactly: the order of a ranking that is
made or that the seed alone decides, and the questions of an evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bridgekd import settings as of
from bridgekd.config import Budget, count_of
from bridgekd.core.admission import Limits
from bridgekd.core.costs import microusd
from bridgekd.core.draws import drawn
from bridgekd.edges.rows import read_column
from bridgekd.edges.store import Artifact, Planned
from bridgekd.records import Example, Pick
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool
from bridgekd.stages.pool import by_id, n_queries, part_of


@dataclass(frozen=True, slots=True)
class PlannedRequests:
    """The questions that a paid stage may send, and the limits of its purchase.

    is_selected: `examples` are the questions in their order, as far as the limits reach; else it is
    not known yet which of them will be sent. strategy: the name of what selects them. prefix_group:
    purchases of the same group begin with the same questions, so one of them sends all that the
    others send. prefers_hard: whether questions are selected for being hard. is_evaluation: whether
    the purchase measures the teacher and is not a part of the budget.
    """

    ask: of.Ask
    examples: Sequence[Example]
    is_selected: bool
    limits: Limits
    strategy: str
    prefix_group: str
    prefers_hard: bool = False
    is_evaluation: bool = False

    @property
    def is_query_limited(self) -> bool:
        """Whether nothing but the number of requests ends the purchase."""
        limits = self.limits
        return limits == Limits(queries=limits.queries)


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan has read: how every artifact would be made, by its folder, and the data."""

    planned: Mapping[str, Planned]
    read_pool: Callable[[Artifact], Sequence[Example]]
    test: Sequence[Example]


def plan_ranked_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `query_teacher`: a ranking from its top, within a part of a budget.

    The order of a ranking that another stage than `select` makes is known when it is made.
    """
    settings = stage.settings
    assert isinstance(settings, of.QueryTeacher)
    (pool,), (ranking,) = stage.inputs["pool"], stage.inputs["ranking"]
    examples = inputs.read_pool(pool)
    limits = compute_limits(settings.budget, len(examples), settings.part)
    source = inputs.planned[ranking.path.name]
    order: Sequence[str] | None = None
    if ranking.done:
        order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    strategy, group, prefers_hard = source.stage.name, ranking.path.name, True
    if isinstance(select := source.settings, of.Select):
        order = _rank_by_seed(source, select, examples) if order is None else order
        strategy, group = select.strategy.name, _name_prefix_group(source, select)
        prefers_hard = STRATEGIES.load(select.strategy).needs_difficulty
    if order is not None:
        found = by_id(examples, order[: limits.queries])
        examples = [found[id] for id in order[: limits.queries]]
    return PlannedRequests(
        settings.ask, examples, order is not None, limits, strategy, group, prefers_hard
    )


def _rank_by_seed(
    source: Planned, select: of.Select, pool: Sequence[Example]
) -> Sequence[str] | None:
    """Return the ids of the pool in the order of a strategy that needs no model; else None.

    What an earlier round asks is left out of a later one, and is not known yet.
    """
    strategy = STRATEGIES.load(select.strategy)
    if strategy.needs_difficulty or strategy.needs_embeddings or not strategy.is_nested:
        return None
    if "answers" in source.inputs:
        return None
    ids = [e.id for e in pool]
    ranking = rank_pool(
        strategy,
        STRATEGIES.parse_options(select.strategy),
        ids,
        np.zeros(len(ids)),
        np.empty((len(ids), 0), dtype=np.float32),
        domains=[e.domain for e in pool],
        n_selected=0,
        seed=select.seed,
    )
    return [ids[row] for row in ranking.rows]


def _name_prefix_group(source: Planned, select: of.Select) -> str:
    """Return what purchases have in common that begin with the same questions."""
    if not STRATEGIES.load(select.strategy).is_nested or "answers" in source.inputs:
        return source.artifact.path.name
    same = select.model_copy(update={"queries": None, "part": of.WHOLE})
    made_from = (artifact.fingerprint for artifact in chain(*source.inputs.values()))
    return " ".join([same.model_dump_json(), *made_from])


def plan_evaluation_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `measure_teacher`: test questions at random, without their answers."""
    settings = stage.settings
    assert isinstance(settings, of.MeasureTeacher)
    examples = choose_evaluation_questions(settings, inputs.test)
    return PlannedRequests(
        ask=hide_answer(settings.ask),
        examples=examples,
        is_selected=True,
        limits=Limits(queries=len(examples)),
        strategy="random",
        prefix_group=stage.artifact.path.name,
        is_evaluation=True,
    )


def choose_evaluation_questions(
    settings: of.MeasureTeacher, test: Sequence[Example]
) -> list[Example]:
    """Return the test questions that measure the teacher, in the order of asking."""
    n = count_of(settings.queries, len(test))
    return [test[i] for i in drawn(settings.seed, "teacher test", n=n, of=len(test))]


def hide_answer(ask: of.Ask) -> of.Ask:
    """Return how the teacher is asked where it must not see the gold answer."""
    prompt = ask.prompt.model_copy(update={"reveal_answer": False})
    return ask.model_copy(update={"prompt": prompt})


def compute_limits(budget: Budget, n_pool: int, part: of.Part = of.WHOLE) -> Limits:
    """Return what a part of a budget admits for a pool of n; parts in a row add up to the whole."""
    usd = None if budget.usd is None else microusd(budget.usd)
    return Limits(
        queries=part_of(n_queries(budget.queries, n_pool), part),
        microusd=None if usd is None else part_of(usd, part),
        tokens=None if budget.tokens is None else part_of(budget.tokens, part),
        accepted=None if budget.accepted is None else part_of(budget.accepted, part),
    )
