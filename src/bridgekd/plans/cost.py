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

from bridgekd.api_client.request_key import (
    TeacherRequest,
    build_request,
    compute_request_key,
    get_billed_messages,
)
from bridgekd.cost.bounds import KnownCost, PlannedRequest, plan_requests
from bridgekd.cost.budget import Limits
from bridgekd.cost.forecast import CostForecast, forecast_cost
from bridgekd.cost.joint_forecast import forecast_total
from bridgekd.cost.request_cost import compute_max_prompt_tokens, to_microusd
from bridgekd.cost.token_lengths import LengthEvidence, choose_evidence
from bridgekd.io.artifact_store import Artifact, Planned, PlanStore
from bridgekd.io.lazy_rows import LazyRows
from bridgekd.io.read_pool import read_pool
from bridgekd.io.row_files import ROW_GROUP_SIZE
from bridgekd.ledger.usage_history import (
    read_known_answers,
    read_known_costs,
    read_reserved_microusd,
)
from bridgekd.recipe import Price, TeacherOptions
from bridgekd.records import Example
from bridgekd.runs.run import Run
from bridgekd.stages.load_data import LoadPoolSettings, split_validation
from bridgekd.stages.query_teacher import (
    PlanInputs,
    PlannedRequests,
    TeacherRequestSettings,
    iter_requests,
)
from bridgekd.teacher.transport import KnownAnswers
from bridgekd.teacher.transports import resolve_teacher


@dataclass(frozen=True, slots=True)
class PurchaseSummary:
    """One purchase still to come; `requests` has no examples here.

    n_unrecorded: questions that recordings have no answer for.
    """

    stage: str
    folder: str
    requests: PlannedRequests
    forecast: CostForecast
    n_unrecorded: int = 0


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What planning works on; pools and forecasts are made once."""

    run: Run
    store: PlanStore
    test: Sequence[Example]
    pools: dict[str, LazyRows[Example]] = field(default_factory=dict)
    forecasts: dict[Any, CostForecast] = field(default_factory=dict)

    def read_pool(self, artifact: Artifact) -> LazyRows[Example]:
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
                self.pools[name] = self.read_pool(planned.inputs["pool"][0])
        return self.pools[name]

    def plan_requests(self, planned: Planned) -> PlannedRequests:
        """Return what a paid stage would send, as the stage says."""
        assert planned.stage.plan_requests is not None
        inputs = PlanInputs(self.store.planned, self.read_pool, self.test)
        requests: PlannedRequests = planned.stage.plan_requests(planned, inputs)
        return requests

    def forecast_single(self, requests: PlannedRequests) -> CostForecast:
        """Return the cost of one purchase."""
        questions = {requests.request.model_dump_json(): (requests.request, requests.examples)}
        return self._forecast(questions, requests.limits, ordered=requests.is_selected)

    def forecast_union(self, several: Sequence[PlannedRequests]) -> CostForecast:
        """Return the cost of every question that these purchases name, each once."""
        examples: dict[str, dict[str, Example]] = {}
        for requests in several:
            named = examples.setdefault(requests.request.model_dump_json(), {})
            named.update({e.id: e for e in requests.examples})
        asks = {r.request.model_dump_json(): r.request for r in several}
        questions = {key: (ask, list(examples[key].values())) for key, ask in asks.items()}
        return self._forecast(questions, Limits(), ordered=True)

    def count_unrecorded(self, requests: PlannedRequests) -> int:
        """Return how many of the questions recordings have no answer for."""
        answers = resolve_teacher(self.run.recipe.teacher).load_answers()
        if answers is None:
            return 0
        calls = iter_requests(requests.request, requests.examples, self.run.few_shot)
        return sum(len(answers.find_missing(part)) for part in iter_chunks(calls))

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
            self.forecasts[key] = forecast_purchase(
                chain.from_iterable(calls),
                teacher=run.recipe.teacher,
                limits=limits,
                ledger=run.ctx.ledger,
                ordered=ordered,
                hard_stop_usd=run.recipe.hard_limit_usd,
            )
        return self.forecasts[key]


def collect_purchases(
    world: PlanContext, pending: Sequence[Planned]
) -> tuple[tuple[PurchaseSummary, ...], CostForecast | None]:
    """Return every purchase, and the cost of all together; None if there is none."""
    if not pending:
        return (), None
    requests = [world.plan_requests(planned) for planned in pending]
    forecasts = [world.forecast_single(r) for r in requests]
    purchases = tuple(
        PurchaseSummary(
            planned.artifact.stage,
            planned.artifact.path.name,
            # A plan outlives the pool, and many purchases of a large one would fill the memory.
            replace(r, examples=()),
            forecast,
            world.count_unrecorded(r),
        )
        for planned, r, forecast in zip(pending, requests, forecasts, strict=True)
    )
    return purchases, _forecast_together(world, requests, forecasts)


def _forecast_together(
    world: PlanContext, requests: Sequence[PlannedRequests], forecasts: Sequence[CostForecast]
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
        everything = world.forecast_union(requests)
    union = [[world.forecast_union(known)]] if known else []
    room = _get_room(world.run.ctx.ledger, world.run.recipe.hard_limit_usd)
    return forecast_total([*union, *groups.values()], everything=everything, room_microusd=room)


def _get_room(ledger: Path, hard_stop_usd: float | None) -> int | None:
    """Return what the hard stop leaves for new money; None if there is none."""
    return (
        None
        if hard_stop_usd is None
        else to_microusd(hard_stop_usd) - read_reserved_microusd(ledger)
    )


def forecast_purchase(
    requests: Iterable[TeacherRequest],
    *,
    teacher: TeacherOptions,
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
    calls: list[PlannedRequest] = []
    seen: set[str] = set()
    example: Mapping[str, Any] | None = None
    for part in iter_chunks(requests):
        bodies = [build_request(teacher, r) for r in part]
        example = example or bodies[0]
        keys = [compute_request_key(body) for body in bodies]
        settled = read_known_costs(ledger, keys)
        if answers is not None:
            settled = _price_recorded(answers, keys, part) | settled
        elif ordered:  # refuses a prompt that is too long for its price
            longest = max(part, key=lambda r: compute_max_prompt_tokens(r.messages))
            resolved.check_prompt_length(longest.id, resolved.compute_max_cost(longest))
        calls += plan_requests(
            [get_billed_messages(body) for body in bodies],
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


def iter_chunks(requests: Iterable[TeacherRequest]) -> Iterator[list[TeacherRequest]]:
    """Yield some thousands at a time: a pool of millions is never in memory as requests."""
    coming = iter(requests)
    while part := list(islice(coming, ROW_GROUP_SIZE)):
        yield part


def _mark_seen(key: str, seen: set[str]) -> bool:
    """Return whether a key was seen; it is from now on."""
    if key in seen:
        return True
    seen.add(key)
    return False


def _price_recorded(
    answers: KnownAnswers, keys: Sequence[str], requests: Sequence[TeacherRequest]
) -> dict[str, KnownCost]:
    """Return what each request will cost, by key."""
    costs = {key: answers.get_cost(r) for key, r in zip(keys, requests, strict=True)}
    return {key: KnownCost(c.cost_microusd, c.n_tokens, is_unpaid=True) for key, c in costs.items()}


def _load_evidence(
    ledger: Path, example: Mapping[str, Any] | None, own: Collection[str], teacher: TeacherOptions
) -> LengthEvidence:
    answers = read_known_answers(ledger, example) if example is not None else []
    return choose_evidence(
        [a.usage for a in answers if a.same_template and a.key in own],
        [a.usage for a in answers if a.same_template and a.key not in own],
        [a.usage for a in answers if not a.same_template],
        teacher.expected_completion_tokens,
    )
