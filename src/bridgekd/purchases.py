"""What is still to be bought: each purchase by its prompts, its limits and what the ledger knows,
and all of them together.

The one idea: a question that several arms, seeds or budgets ask is one call, paid once. Where it is
known what each will ask, the calls are counted exactly; where a choice is still to be made, the
bill together lies between that of the dearest one alone, as all may choose alike, and that of all
apart.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bridgekd.config import Price, Teacher
from bridgekd.core.admission import Limits
from bridgekd.core.bounds import Call, Settled, calls_for
from bridgekd.core.calls import TeacherRequest, billed_messages_of, call_key, call_request
from bridgekd.core.costs import microusd, prompt_token_bound
from bridgekd.cost.budget_slice import FULL_BUDGET, compute_limits
from bridgekd.cost.forecast import CostForecast, forecast_cost
from bridgekd.cost.joint_forecast import forecast_total
from bridgekd.cost.token_lengths import LengthEvidence, choose_evidence
from bridgekd.edges.columns import Rows
from bridgekd.edges.rows import GROUP, read_column
from bridgekd.edges.store import Artifact, PlanStore
from bridgekd.io.read_pool import index_by_id, read_pool
from bridgekd.ledger.history import held_microusd, known_answers, settled_calls
from bridgekd.records import Example, Pick
from bridgekd.runs import Run
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.selection.strategy import rank_pool
from bridgekd.stages.load_data import LoadPoolSettings, split_validation
from bridgekd.stages.query_teacher import (
    EvaluateTeacherSettings,
    QueryTeacherSettings,
    TeacherRequestSettings,
    evaluate_teacher,
    hide_answer,
    iter_requests,
    query_teacher,
    sample_test_questions,
)
from bridgekd.stages.select_questions import SelectSettings
from bridgekd.teacher.orders import bound_of, refuse_long
from bridgekd.teacher.transport import KnownAnswers
from bridgekd.teacher.transports import resolve_teacher


@dataclass(frozen=True, slots=True)
class Purchase:
    """One buying still to come: a stage of the run, by its folder.

    `chosen`: its prompts are known, in their order; else nobody knows yet which of the pool they
    will be.
    """

    stage: str
    folder: str
    choice: str  # the strategy that chooses its prompts
    chosen: bool
    limits: Limits
    forecast: CostForecast
    by_difficulty: bool = False
    n_unrecorded: int = 0  # prompts it may ask that a replayed teacher has nothing for


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a purchase may ask: `examples` in their order where `chosen`, else any of them."""

    artifact: Artifact
    ask: TeacherRequestSettings
    examples: Sequence[Example]
    chosen: bool
    limits: Limits
    choice: str
    by_difficulty: bool
    nest: str  # purchases of one nest begin alike, so that the longest asks all that the others do

    @property
    def ends_by_number(self) -> bool:
        """Whether nothing but the number of queries ends it."""
        others = (self.limits.microusd, self.limits.tokens, self.limits.accepted)
        return others == (None, None, None)


@dataclass(frozen=True, slots=True)
class World:
    """What planning works on; pools and forecasts are made once."""

    run: Run
    store: PlanStore
    test: Sequence[Example]
    pools: dict[str, Rows[Example]] = field(default_factory=dict)
    told: dict[Any, CostForecast] = field(default_factory=dict)

    def pool(self, artifact: Artifact) -> Rows[Example]:
        """The pool that this artifact is or would be."""
        name = artifact.path.name
        if name not in self.pools and artifact.done:
            self.pools[name] = read_pool(artifact)
        elif name not in self.pools:
            todo = self.store.planned[name]
            assert isinstance(todo.settings, LoadPoolSettings)
            self.pools[name], _ = split_validation(todo.inputs["source"][0], todo.settings)
        return self.pools[name]

    def alone(self, wanted: _Wanted) -> CostForecast:
        """The bill of one purchase."""
        asks = [(wanted.ask, wanted.examples)]
        return self._bill(asks, wanted.limits, ordered=wanted.chosen)

    def union(self, several: Sequence[_Wanted]) -> CostForecast:
        """The bill of every question that these name, each once."""
        asked: dict[tuple[str, str], dict[str, Example]] = {}
        for w in several:
            named = asked.setdefault((w.artifact.stage, w.ask.model_dump_json()), {})
            named.update({e.id: e for e in w.examples})
        asks = [
            (TeacherRequestSettings.model_validate_json(ask), list(named.values()))
            for (_, ask), named in asked.items()
        ]
        return self._bill(asks, Limits(), ordered=True)

    def n_unrecorded(self, wanted: _Wanted) -> int:
        """How many of its questions a replayed teacher has nothing for."""
        answers = resolve_teacher(self.run.recipe.teacher).load_answers()
        if answers is None:
            return 0
        asked = iter_requests(wanted.ask, wanted.examples, self.run.few_shot)
        return sum(len(answers.find_missing(part)) for part in parts_of(asked))

    def _bill(
        self,
        asks: Sequence[tuple[TeacherRequestSettings, Sequence[Example]]],
        limits: Limits,
        *,
        ordered: bool,
    ) -> CostForecast:
        names = hashlib.sha256()
        for ask, examples in asks:
            names.update(f"{ask.model_dump_json()} {len(examples)} ".encode())
            for example in examples:
                names.update(f"{example.id} ".encode("utf-8", "surrogatepass"))
        key, recipe = (ordered, limits, names.digest()), self.run.recipe
        if key not in self.told:
            shots = self.run.few_shot
            self.told[key] = foresee(
                chain.from_iterable(iter_requests(ask, named, shots) for ask, named in asks),
                teacher=recipe.teacher,
                limits=limits,
                ledger=self.run.ctx.ledger,
                ordered=ordered,
                hard_stop_usd=recipe.hard_stop_usd,
            )
        return self.told[key]


def purchases_of(
    world: World, pending: Sequence[Artifact]
) -> tuple[tuple[Purchase, ...], CostForecast | None]:
    """Every purchase by itself, and the bill of all together; None where there is none."""
    reads = {query_teacher.name: _to_buy, evaluate_teacher.name: _to_measure}
    wanted = [reads[a.stage](world, a) for a in pending]
    alone = [world.alone(w) for w in wanted]
    purchases = tuple(
        Purchase(
            w.artifact.stage, w.artifact.path.name, w.choice, w.chosen, w.limits, told,
            w.by_difficulty, world.n_unrecorded(w),
        )
        for w, told in zip(wanted, alone, strict=True)
    )  # fmt: skip
    return purchases, _together(world, wanted, alone) if alone else None


def _together(
    world: World, wanted: Sequence[_Wanted], alone: Sequence[CostForecast]
) -> CostForecast:
    known = [w for w in wanted if w.chosen and w.ends_by_number]
    groups: dict[str, list[CostForecast]] = {}
    for w, forecast in zip(wanted, alone, strict=True):
        if w not in known:
            groups.setdefault(w.nest, []).append(forecast)
    everything = None
    n_open = sum(max(f.n_queries for f in group) for group in groups.values())
    if n_open > max(len(w.examples) for w in wanted) / 2:
        everything = world.union(wanted)
    hard_stop, room = world.run.recipe.hard_stop_usd, None
    if hard_stop is not None:
        room = microusd(hard_stop) - held_microusd(world.run.ctx.ledger)
    union = [[world.union(known)]] if known else []
    return forecast_total([*union, *groups.values()], everything=everything, room_microusd=room)


def foresee(
    requests: Iterable[TeacherRequest],
    *,
    teacher: Teacher,
    limits: Limits,
    ledger: Path,
    ordered: bool,
    hard_stop_usd: float | None = None,
) -> CostForecast:
    """The bill of `requests`, in their order or, unless `ordered`, of any `limits.queries` of
    them, by what the ledger knows. They are looked at part by part, and none is kept.
    """
    resolved = resolve_teacher(teacher)
    price, room = resolved.price, None
    if hard_stop_usd is not None:
        room = microusd(hard_stop_usd) - held_microusd(ledger)
    answers = resolved.load_answers()
    if answers is not None:
        price = price or Price(input=0, output=0)
    calls: list[Call] = []
    seen: set[str] = set()
    like: Mapping[str, Any] | None = None
    for part in parts_of(requests):
        asked = [call_request(teacher, r) for r in part]
        like = like or asked[0]
        keys = [call_key(call) for call in asked]
        settled = settled_calls(ledger, keys)
        if answers is not None:
            settled = _recorded(answers, keys, part) | settled
        elif ordered:  # refuses a prompt that is too long for its price
            longest = max(part, key=lambda r: prompt_token_bound(r.messages))
            most = bound_of(teacher, price, longest)
            refuse_long(teacher.model, price, longest.id, most)
        calls += calls_for(
            [billed_messages_of(call) for call in asked],
            price,
            teacher.max_tokens,
            settled=[settled.get(key) for key in keys],
            repeats=[_again(key, seen) for key in keys],
        )
    evidence = LengthEvidence("recordings")
    if answers is None:
        evidence = _known(ledger, like, seen if ordered else set(), teacher)
    return forecast_cost(
        calls,
        price=price,
        max_tokens=teacher.max_tokens,
        limits=limits,
        ordered=ordered,
        evidence=evidence,
        room_microusd=room,
    )


def parts_of(requests: Iterable[TeacherRequest]) -> Iterator[list[TeacherRequest]]:
    """Some thousands at a time, so that a pool of millions is never in memory as requests."""
    coming = iter(requests)
    while part := list(islice(coming, GROUP)):
        yield part


def _again(key: str, seen: set[str]) -> bool:
    """Whether a key was seen; it is from now on."""
    if key in seen:
        return True
    seen.add(key)
    return False


def _recorded(
    answers: KnownAnswers, keys: Sequence[str], requests: Sequence[TeacherRequest]
) -> dict[str, Settled]:
    """What replaying each request will be billed."""
    bills = {key: answers.get_cost(r) for key, r in zip(keys, requests, strict=True)}
    return {
        key: Settled(b.cost_microusd, b.n_prompt_tokens + b.n_completion_tokens, owed=True)
        for key, b in bills.items()
    }


def _known(
    ledger: Path, like: Mapping[str, Any] | None, mine: Collection[str], teacher: Teacher
) -> LengthEvidence:
    answers = known_answers(ledger, like) if like is not None else []
    return choose_evidence(
        [a.usage for a in answers if a.alike and a.key in mine],
        [a.usage for a in answers if a.alike and a.key not in mine],
        [a.usage for a in answers if not a.alike],
        teacher.expected_tokens,
    )


def _to_buy(world: World, artifact: Artifact) -> _Wanted:
    todo = world.store.planned[artifact.path.name]
    (pool,), (ranking,) = todo.inputs["pool"], todo.inputs["ranking"]
    choice = world.store.planned[ranking.path.name]
    settings, chosen_by = todo.settings, choice.settings
    assert isinstance(settings, QueryTeacherSettings) and isinstance(chosen_by, SelectSettings)
    later = "earlier" in choice.inputs
    examples = world.pool(pool)
    limits = compute_limits(settings.budget, len(examples), settings.part)
    ranked = _ranked(examples, ranking, chosen_by, limits.queries, later=later)
    nest = ranking.path.name
    strategy = STRATEGIES.load(chosen_by.strategy)
    if strategy.is_nested and not later:
        like = chosen_by.model_copy(update={"queries": None, "part": FULL_BUDGET})
        nest = " ".join(
            [like.model_dump_json(), *(a.fingerprint for a in chain(*choice.inputs.values()))]
        )
    return _Wanted(
        artifact=artifact,
        ask=settings.ask,
        examples=examples if ranked is None else ranked,
        chosen=ranked is not None,
        limits=limits,
        choice=chosen_by.strategy.name,
        by_difficulty=strategy.needs_difficulty,
        nest=nest,
    )


def _to_measure(world: World, artifact: Artifact) -> _Wanted:
    settings = world.store.planned[artifact.path.name].settings
    assert isinstance(settings, EvaluateTeacherSettings)
    questions = sample_test_questions(settings, world.test)
    return _Wanted(
        artifact=artifact,
        ask=hide_answer(settings.ask),
        examples=questions,
        chosen=True,
        limits=Limits(queries=len(questions)),
        choice="random",
        by_difficulty=False,
        nest=artifact.path.name,
    )


def _ranked(
    pool: Sequence[Example],
    ranking: Artifact,
    chosen_by: SelectSettings,
    most: int | None,
    *,
    later: bool,
) -> list[Example] | None:
    """The first `most` of the pool in the order of buying; None where that takes scores that are
    still to be made, or hangs on what an earlier round asks.
    """
    if ranking.done:
        order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    elif _is_known_before_scoring(chosen_by) and not later:
        none, nowhere = np.zeros(len(pool)), np.empty((len(pool), 0), dtype=np.float32)
        ids = [e.id for e in pool]
        planned = rank_pool(
            STRATEGIES.load(chosen_by.strategy),
            STRATEGIES.parse_options(chosen_by.strategy),
            ids,
            none,
            nowhere,
            domains=[e.domain for e in pool],
            n_selected=0,
            seed=chosen_by.seed,
        )
        order = [ids[row] for row in planned.rows[:most]]
    else:
        return None
    examples = index_by_id(pool, order[:most])
    return [examples[id] for id in order[:most]]


def _is_known_before_scoring(select: SelectSettings) -> bool:
    strategy = STRATEGIES.load(select.strategy)
    needs_scores = strategy.needs_difficulty or strategy.needs_embeddings
    return strategy.is_nested and not needs_scores
