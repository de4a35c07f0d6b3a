"""What is still to be purchased: each purchase by itself, and all of them together.

The one idea: a question that several arms, seeds or budgets ask is one request, paid once. Where it
is known what each will ask, the requests are counted exactly; where a selection is still to be
made, the cost together lies between that of the most expensive purchase, as all may select the same
questions, and that of all separate ones. Which requests a purchase has, its stage says
(`stages/query_teacher.py`).
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bridgekd.config import Price, Teacher
from bridgekd.core.admission import Limits
from bridgekd.core.bounds import Call, Settled, calls_for
from bridgekd.core.calls import TeacherRequest, billed_messages_of, call_key, call_request
from bridgekd.core.costs import microusd, prompt_token_bound
from bridgekd.cost.forecast import CostForecast, forecast_cost
from bridgekd.cost.joint_forecast import forecast_total
from bridgekd.cost.token_lengths import LengthEvidence, choose_evidence
from bridgekd.edges.columns import Rows
from bridgekd.edges.rows import GROUP
from bridgekd.edges.store import Artifact, Planned, PlanStore
from bridgekd.io.read_pool import read_pool
from bridgekd.ledger.history import held_microusd, known_answers, settled_calls
from bridgekd.records import Example
from bridgekd.runs import Run
from bridgekd.stages.load_data import LoadPoolSettings, split_validation
from bridgekd.stages.query_teacher import (
    PlanInputs,
    PlannedRequests,
    TeacherRequestSettings,
    iter_requests,
)
from bridgekd.teacher.orders import bound_of, refuse_long
from bridgekd.teacher.transport import KnownAnswers
from bridgekd.teacher.transports import resolve_teacher


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase still to come; `requests` has no examples here.

    n_unrecorded: questions that recordings have no answer for.
    """

    stage: str
    folder: str
    requests: PlannedRequests
    forecast: CostForecast
    n_unrecorded: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """What planning works on; pools and forecasts are made once."""

    run: Run
    store: PlanStore
    test: Sequence[Example]
    pools: dict[str, Rows[Example]] = field(default_factory=dict)
    forecasts: dict[Any, CostForecast] = field(default_factory=dict)

    def pool(self, artifact: Artifact) -> Rows[Example]:
        """Return the pool that this artifact is or would be.

        A planned stage that makes a pool of another one is taken to keep every question.
        """
        name = artifact.path.name
        if name not in self.pools and artifact.done:
            self.pools[name] = read_pool(artifact)
        elif name not in self.pools:
            planned = self.store.planned[name]
            if isinstance(planned.settings, LoadPoolSettings):
                source = planned.inputs["source"][0]
                self.pools[name], _ = split_validation(source, planned.settings)
            else:
                self.pools[name] = self.pool(planned.inputs["pool"][0])
        return self.pools[name]

    def plan_requests(self, planned: Planned) -> PlannedRequests:
        """Return what a paid stage would send, as the stage says."""
        assert planned.stage.plan_requests is not None
        inputs = PlanInputs(self.store.planned, self.pool, self.test)
        requests: PlannedRequests = planned.stage.plan_requests(planned, inputs)
        return requests

    def alone(self, requests: PlannedRequests) -> CostForecast:
        """Return the cost of one purchase."""
        questions = {requests.ask.model_dump_json(): (requests.ask, requests.examples)}
        return self._forecast(questions, requests.limits, ordered=requests.is_selected)

    def union(self, several: Sequence[PlannedRequests]) -> CostForecast:
        """Return the cost of every question that these purchases name, each once."""
        examples: dict[str, dict[str, Example]] = {}
        for requests in several:
            named = examples.setdefault(requests.ask.model_dump_json(), {})
            named.update({e.id: e for e in requests.examples})
        asks = {r.ask.model_dump_json(): r.ask for r in several}
        questions = {key: (ask, list(examples[key].values())) for key, ask in asks.items()}
        return self._forecast(questions, Limits(), ordered=True)

    def n_unrecorded(self, requests: PlannedRequests) -> int:
        """Return how many of the questions recordings have no answer for."""
        answers = resolve_teacher(self.run.recipe.teacher).load_answers()
        if answers is None:
            return 0
        calls = iter_requests(requests.ask, requests.examples, self.run.few_shot)
        return sum(len(answers.find_missing(part)) for part in parts_of(calls))

    def _forecast(
        self,
        questions: Mapping[str, tuple[TeacherRequestSettings, Sequence[Example]]],
        limits: Limits,
        *,
        ordered: bool,
    ) -> CostForecast:
        names = hashlib.sha256()
        for ask, (_, examples) in questions.items():
            names.update(f"{ask} {len(examples)} ".encode())
            for example in examples:
                names.update(f"{example.id} ".encode("utf-8", "surrogatepass"))
        key, run = (ordered, limits, names.digest()), self.run
        if key not in self.forecasts:
            calls = (iter_requests(ask, named, run.few_shot) for ask, named in questions.values())
            self.forecasts[key] = foresee(
                chain.from_iterable(calls),
                teacher=run.recipe.teacher,
                limits=limits,
                ledger=run.ctx.ledger,
                ordered=ordered,
                hard_stop_usd=run.recipe.hard_stop_usd,
            )
        return self.forecasts[key]


def purchases_of(
    world: World, pending: Sequence[Planned]
) -> tuple[tuple[Purchase, ...], CostForecast | None]:
    """Return every purchase, and the cost of all together; None if there is none."""
    if not pending:
        return (), None
    requests = [world.plan_requests(planned) for planned in pending]
    forecasts = [world.alone(r) for r in requests]
    purchases = tuple(
        Purchase(
            planned.artifact.stage,
            planned.artifact.path.name,
            # A plan outlives the pool, and many purchases of a large one would fill the memory.
            replace(r, examples=()),
            forecast,
            world.n_unrecorded(r),
        )
        for planned, r, forecast in zip(pending, requests, forecasts, strict=True)
    )
    return purchases, _forecast_together(world, requests, forecasts)


def _forecast_together(
    world: World, requests: Sequence[PlannedRequests], forecasts: Sequence[CostForecast]
) -> CostForecast:
    known: list[PlannedRequests] = []
    groups: dict[str, list[CostForecast]] = {}
    for r, forecast in zip(requests, forecasts, strict=True):
        if r.is_selected and r.is_query_limited:
            known.append(r)
        else:
            groups.setdefault(r.prefix_group, []).append(forecast)
    everything = None
    n_open = sum(max(f.n_queries for f in group) for group in groups.values())
    if n_open > max(len(r.examples) for r in requests) / 2:
        everything = world.union(requests)
    union = [[world.union(known)]] if known else []
    room = _get_room(world.run.ctx.ledger, world.run.recipe.hard_stop_usd)
    return forecast_total([*union, *groups.values()], everything=everything, room_microusd=room)


def _get_room(ledger: Path, hard_stop_usd: float | None) -> int | None:
    """Return what the hard stop leaves for new money; None if there is none."""
    return None if hard_stop_usd is None else microusd(hard_stop_usd) - held_microusd(ledger)


def foresee(
    requests: Iterable[TeacherRequest],
    *,
    teacher: Teacher,
    limits: Limits,
    ledger: Path,
    ordered: bool,
    hard_stop_usd: float | None = None,
) -> CostForecast:
    """Return the cost of `requests` by what the ledger knows.

    They are sent in their order or, unless `ordered`, it is any `limits.queries` of them. They are
    looked at part by part, and none is kept.
    """
    resolved = resolve_teacher(teacher)
    answers = resolved.load_answers()
    price = resolved.price if answers is None else resolved.price or Price(input=0, output=0)
    calls: list[Call] = []
    seen: set[str] = set()
    example: Mapping[str, Any] | None = None
    for part in parts_of(requests):
        bodies = [call_request(teacher, r) for r in part]
        example = example or bodies[0]
        keys = [call_key(body) for body in bodies]
        settled = settled_calls(ledger, keys)
        if answers is not None:
            settled = _price_recorded(answers, keys, part) | settled
        elif ordered:  # refuses a prompt that is too long for its price
            longest = max(part, key=lambda r: prompt_token_bound(r.messages))
            refuse_long(teacher.model, price, longest.id, bound_of(teacher, price, longest))
        calls += calls_for(
            [billed_messages_of(body) for body in bodies],
            price,
            teacher.max_tokens,
            settled=[settled.get(key) for key in keys],
            repeats=[_mark_seen(key, seen) for key in keys],
        )
    evidence = LengthEvidence("recordings")
    if answers is None:
        evidence = _load_evidence(ledger, example, seen if ordered else set(), teacher)
    return forecast_cost(
        calls,
        price=price,
        max_tokens=teacher.max_tokens,
        limits=limits,
        ordered=ordered,
        evidence=evidence,
        room_microusd=_get_room(ledger, hard_stop_usd),
    )


def parts_of(requests: Iterable[TeacherRequest]) -> Iterator[list[TeacherRequest]]:
    """Yield some thousands at a time: a pool of millions is never in memory as requests."""
    coming = iter(requests)
    while part := list(islice(coming, GROUP)):
        yield part


def _mark_seen(key: str, seen: set[str]) -> bool:
    """Return whether a key was seen; it is from now on."""
    if key in seen:
        return True
    seen.add(key)
    return False


def _price_recorded(
    answers: KnownAnswers, keys: Sequence[str], requests: Sequence[TeacherRequest]
) -> dict[str, Settled]:
    """Return what each request will cost, by key."""
    costs = {key: answers.get_cost(r) for key, r in zip(keys, requests, strict=True)}
    return {
        key: Settled(c.cost_microusd, c.n_prompt_tokens + c.n_completion_tokens, owed=True)
        for key, c in costs.items()
    }


def _load_evidence(
    ledger: Path, example: Mapping[str, Any] | None, own: Collection[str], teacher: Teacher
) -> LengthEvidence:
    answers = known_answers(ledger, example) if example is not None else []
    return choose_evidence(
        [a.usage for a in answers if a.alike and a.key in own],
        [a.usage for a in answers if a.alike and a.key not in own],
        [a.usage for a in answers if not a.alike],
        teacher.expected_tokens,
    )
