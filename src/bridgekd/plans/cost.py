"""The cost of the purchases of a plan: of each one, and of all together.

The one idea: a question that several arms, seeds or budgets send is one request, which is paid
once. If the questions of all purchases are known, the requests are counted exactly. If a selection
is not made yet, all purchases may select the same questions, so the total cost is between that of
the most expensive purchase and the sum of all. The stage of a purchase plans its requests
(`stages/query_teacher.py`).
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

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
from bridgekd.selection.representativeness import SelectionCheck
from bridgekd.stages.load_data import LoadPoolSettings, split_validation
from bridgekd.stages.query_teacher import (
    PlanInputs,
    PlannedRequests,
    iter_requests,
)
from bridgekd.stages.select_questions import check_selection
from bridgekd.teacher.transports import resolve_teacher


@dataclass(frozen=True, slots=True)
class PlannedPurchase:
    """One purchase of a plan; `requests` has no examples here.

    n_unrecorded: requests that have no answer in the recordings. selection: how the selected
    questions compare with random ones; None if they are not selected yet.
    """

    stage: str
    folder: str
    requests: PlannedRequests
    forecast: CostForecast
    n_unrecorded: int = 0
    selection: SelectionCheck | None = None


@dataclass(frozen=True, slots=True)
class PlanContext:
    """The run and the data of a plan; every pool and forecast is made once."""

    run: Run
    store: PlanStore
    test: Sequence[Example]
    pools: dict[str, LazyRows[Example]] = field(default_factory=dict)
    forecasts: dict[object, CostForecast] = field(default_factory=dict)

    def read_pool(self, artifact: Artifact) -> LazyRows[Example]:
        """Return the pool that this artifact is or would be.

        A planned stage that makes a pool of another one is assumed to keep every question.
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
        """Return what a paid stage would send."""
        assert planned.stage.plan_requests is not None
        inputs = PlanInputs(self.store.planned, self.read_pool, self.test)
        requests: PlannedRequests = planned.stage.plan_requests(planned, inputs)
        return requests

    def forecast_single(self, requests: PlannedRequests) -> CostForecast:
        """Return the cost of one purchase."""
        return self._forecast([requests], requests.limits, ordered=requests.is_selected)

    def forecast_union(self, several: Sequence[PlannedRequests]) -> CostForecast:
        """Return the cost of all requests of these purchases, each paid once."""
        groups: dict[tuple[str, int], list[PlannedRequests]] = {}
        for requests in sorted(several, key=lambda r: -r.n_samples):
            key = (requests.request.model_dump_json(), requests.n_samples)
            groups.setdefault(key, []).append(requests)
        merged = []
        seen: set[tuple[str, str]] = set()  # more samples of a question include fewer
        for (request, _), group in groups.items():
            examples = {e.id: e for r in group for e in r.examples if (request, e.id) not in seen}
            seen.update((request, id) for id in examples)
            merged.append(replace(group[0], examples=list(examples.values())))
        return self._forecast(merged, Limits(), ordered=True)

    def count_unrecorded(self, requests: PlannedRequests) -> int:
        """Return the number of requests that have no answer in the recordings."""
        answers = resolve_teacher(self.run.recipe.teacher).load_answers()
        if answers is None:
            return 0
        return sum(not answers.has_answer(r) for r in self._iter_requests(requests))

    def _iter_requests(self, requests: PlannedRequests) -> Iterator[TeacherRequest]:
        return iter_requests(
            requests.request, requests.examples, self.run.few_shot, requests.n_samples
        )

    def _forecast(
        self, several: Sequence[PlannedRequests], limits: Limits, *, ordered: bool
    ) -> CostForecast:
        names = hashlib.sha256()
        for requests in several:
            size = f"{len(requests.examples)} {requests.n_samples}"
            names.update(f"{requests.request.model_dump_json()} {size} ".encode())
            for example in requests.examples:
                names.update(f"{example.id} ".encode("utf-8", "surrogatepass"))
        key, recipe = (ordered, limits, names.digest()), self.run.recipe
        if key not in self.forecasts:
            self.forecasts[key] = forecast_purchase(
                chain.from_iterable(map(self._iter_requests, several)),
                teacher=recipe.teacher,
                limits=limits,
                ledger=self.run.ctx.ledger,
                ordered=ordered,
                hard_limit_usd=recipe.hard_limit_usd,
            )
        return self.forecasts[key]


def collect_purchases(
    context: PlanContext, pending: Sequence[Planned]
) -> tuple[tuple[PlannedPurchase, ...], CostForecast | None]:
    """Return every purchase and their total cost; None if there is none."""
    if not pending:
        return (), None
    requests = [context.plan_requests(planned) for planned in pending]
    forecasts = [context.forecast_single(r) for r in requests]
    purchases = tuple(
        PlannedPurchase(
            planned.artifact.stage,
            planned.artifact.path.name,
            # A plan outlives the pool. The examples of many purchases would fill the memory.
            replace(r, examples=()),
            forecast,
            context.count_unrecorded(r),
            next((check_selection(a) for a in planned.inputs.get("ranking", ()) if a.done), None),
        )
        for planned, r, forecast in zip(pending, requests, forecasts, strict=True)
    )
    return purchases, _forecast_total(context, requests, forecasts)


def _forecast_total(
    context: PlanContext, requests: Sequence[PlannedRequests], forecasts: Sequence[CostForecast]
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
    if n_open > max(len(r.examples) * r.n_samples for r in requests) / 2:
        everything = context.forecast_union(requests)
    union = [[context.forecast_union(known)]] if known else []
    room = _compute_room(context.run.ctx.ledger, context.run.recipe.hard_limit_usd)
    return forecast_total([*union, *groups.values()], everything=everything, room_microusd=room)


def _compute_room(ledger: Path, hard_limit_usd: float | None) -> int | None:
    """Return what the hard limit leaves for new money; None without a hard limit."""
    if hard_limit_usd is None:
        return None
    return to_microusd(hard_limit_usd) - read_reserved_microusd(ledger)


def forecast_purchase(
    requests: Iterable[TeacherRequest],
    *,
    teacher: TeacherOptions,
    limits: Limits,
    ledger: Path,
    ordered: bool,
    hard_limit_usd: float | None = None,
) -> CostForecast:
    """Return the cost of `requests` from the answers in the ledger.

    They are sent in their order; unless `ordered`, any `limits.queries` of them are sent. They are
    read in chunks and not kept in memory.
    """
    resolved = resolve_teacher(teacher)
    answers = resolved.load_answers()
    price = resolved.price if answers is None else resolved.price or Price(input=0, output=0)
    planned: list[PlannedRequest] = []
    seen: set[str] = set()
    example: Mapping[str, object] | None = None
    for chunk in iter_chunks(requests):
        bodies = [build_request(teacher, r) for r in chunk]
        example = example or bodies[0]
        keys = [compute_request_key(body) for body in bodies]
        settled = read_known_costs(ledger, keys)
        if answers is not None:
            costs = zip(keys, map(answers.get_cost, chunk), strict=True)
            recorded = {k: KnownCost(c.cost_microusd, c.n_tokens, is_unpaid=True) for k, c in costs}
            settled = recorded | settled
        elif ordered:  # raises InputError if a prompt is too long for the price
            longest = max(chunk, key=lambda r: compute_max_prompt_tokens(r.messages))
            resolved.check_prompt_length(longest.id, resolved.compute_max_cost(longest))
        repeats = []
        for key in keys:
            repeats.append(key in seen)
            seen.add(key)
        planned += plan_requests(
            [get_billed_messages(body) for body in bodies],
            price,
            teacher.max_tokens,
            settled=[settled.get(key) for key in keys],
            repeats=repeats,
        )
    evidence = LengthEvidence("recordings")
    if answers is None:
        evidence = _load_evidence(ledger, example, seen if ordered else set(), teacher)
    return forecast_cost(
        planned,
        price=price,
        max_tokens=teacher.max_tokens,
        limits=limits,
        ordered=ordered,
        evidence=evidence,
        room_microusd=_compute_room(ledger, hard_limit_usd),
    )


def iter_chunks(requests: Iterable[TeacherRequest]) -> Iterator[list[TeacherRequest]]:
    """Yield lists of some thousands, so a pool of millions is never in memory as requests."""
    remaining = iter(requests)
    while chunk := list(islice(remaining, ROW_GROUP_SIZE)):
        yield chunk


def _load_evidence(
    ledger: Path,
    example: Mapping[str, object] | None,
    own_keys: Collection[str],
    teacher: TeacherOptions,
) -> LengthEvidence:
    answers = read_known_answers(ledger, example) if example is not None else []
    return choose_evidence(
        [a.usage for a in answers if a.same_template and a.key in own_keys],
        [a.usage for a in answers if a.same_template and a.key not in own_keys],
        [a.usage for a in answers if not a.same_template],
        teacher.expected_completion_tokens,
    )
