"""The JSON documents of `--json`: one typed model per command.

`docs/commands.schema.json` is their JSON schema. `report --json` prints `metrics.json`, and
`plan --pilot --json` prints `pilot.json`. The end of a field's name is its unit. The amounts of a
`CostForecast` are in micro-dollars, those of a `Price` in dollars per million tokens.
"""

import json
from typing import Literal

import typer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bridgekd.cost.budget import Limits
from bridgekd.cost.forecast import CostForecast
from bridgekd.ledger.spend import SpendRow
from bridgekd.plans.plan import Plan, PriceInfo
from bridgekd.plans.stage_durations import DurationEstimate
from bridgekd.recipe import FrozenModel
from bridgekd.runs.run import RunState
from bridgekd.selection.representativeness import SelectionCheck
from bridgekd.throughput import WorkKind

VariantType = Literal[
    "methods",
    "strategies",
    "difficulties",
    "mixtures",
    "objectives",
    "selectors",
    "target_formats",
    "orders",
    "transports",
    "graders",
]


class VariantInfo(FrozenModel):
    """A variant. `paper` is an arXiv number or a citation; it is empty for bridgekd's own."""

    name: str
    title: str
    summary: str
    paper: str


class VariantList(FrozenModel):
    """`list --json`."""

    variant_type: VariantType
    variants: tuple[VariantInfo, ...]


class StageDocument(FrozenModel):
    """A stage of a plan. `seconds` is an estimate, or null if it is done or its speed unknown."""

    stage: str
    folder: str
    done: bool
    seconds: float | None


class PurchaseDocument(FrozenModel):
    """A purchase that is still to be made. `n_unrecorded` queries have no recorded answer.

    `selection` compares the selected questions with random ones; null if none are selected yet.
    """

    stage: str
    folder: str
    strategy: str
    is_selected: bool
    is_evaluation: bool
    limits: Limits
    cost: CostForecast
    n_unrecorded: int
    selection: SelectionCheck | None = None


class TimeDocument(FrozenModel):
    """The time of the local work. `missing` names the models without a measured speed."""

    seconds: float
    seconds_by_kind: dict[WorkKind, float]
    missing: tuple[str, ...]
    n_untimed: int
    rationale_tokens: float
    rationale_source: str | None


class PlanDocument(FrozenModel):
    """`plan --json`."""

    name: str
    stages: tuple[StageDocument, ...]
    n_pool: int
    n_validation: int
    n_test: int
    n_variants: int
    purchases: tuple[PurchaseDocument, ...]
    total_cost: CostForecast | None
    price: PriceInfo
    hard_limit_microusd: int | None
    reserved_microusd: int
    host: str
    is_sent: bool
    fields_sent: str
    needs_consent: bool
    uses_server: bool
    server_host: str
    time: TimeDocument | None


class StageStatus(FrozenModel):
    """A stage of a run. `seconds` is null unless it is done, the fields after it unless it pays.

    `n_without_answer` queries were refused or failed. `n_at_reserve` had no usable token counts.
    """

    stage: str
    folder: str
    state: Literal["done", "missing", "unfinished"]
    seconds: float | None = None
    spend_microusd: int | None = None
    n_queries: int | None = None
    n_without_answer: int | None = None
    n_at_reserve: int | None = None


class StatusDocument(FrozenModel):
    """`status --json`. `remaining` is null for a finished run, and if it cannot be planned."""

    name: str
    state: RunState
    stages: tuple[StageStatus, ...]
    remaining: PlanDocument | None
    ledger: tuple[SpendRow, ...]


class SpendDocument(FrozenModel):
    """`ledger show --json`: one row per group. A row has no value for a column not in `by`."""

    path: str
    by: tuple[str, ...]
    rows: tuple[SpendRow, ...]
    total: SpendRow


def build_plan_document(plan: Plan) -> PlanDocument:
    """Return a plan as a document."""
    timed = {} if plan.durations is None else plan.durations.stages
    return PlanDocument(
        name=plan.name,
        stages=tuple(
            StageDocument(
                stage=artifact.stage,
                folder=artifact.path.name,
                done=artifact.done,
                seconds=timed[folder].seconds if (folder := artifact.path.name) in timed else None,
            )
            for artifact in plan.stages
        ),
        n_pool=plan.n_pool,
        n_validation=plan.n_validation,
        n_test=plan.n_test,
        n_variants=plan.n_variants,
        purchases=tuple(
            PurchaseDocument(
                stage=purchase.stage,
                folder=purchase.folder,
                strategy=purchase.requests.strategy,
                is_selected=purchase.requests.is_selected,
                is_evaluation=purchase.requests.is_evaluation,
                limits=purchase.requests.limits,
                cost=purchase.forecast,
                n_unrecorded=purchase.n_unrecorded,
                selection=purchase.selection,
            )
            for purchase in plan.purchases
        ),
        total_cost=plan.total_cost,
        price=plan.price,
        hard_limit_microusd=plan.hard_limit_microusd,
        reserved_microusd=plan.reserved_microusd,
        host=plan.host,
        is_sent=plan.is_sent,
        fields_sent=plan.fields_sent,
        needs_consent=plan.needs_consent,
        uses_server=plan.uses_server,
        server_host=plan.server_host,
        time=None if plan.durations is None else _build_time(plan.durations),
    )


def _build_time(durations: DurationEstimate) -> TimeDocument:
    return TimeDocument(
        seconds=durations.total,
        seconds_by_kind=durations.by_kind,
        missing=tuple(f"{work.kind} with {work.base_name}" for work in durations.missing),
        n_untimed=durations.n_untimed,
        rationale_tokens=durations.rationale_tokens,
        rationale_source=durations.rationale_source,
    )


def print_document(document: BaseModel) -> None:
    """Write a document to stdout as ASCII, which every encoding of a pipe can hold."""
    typer.echo(json.dumps(document.model_dump(mode="json"), indent=1))


def build_schema() -> dict[str, object]:
    """Return the JSON schema of all documents: types and names, without the texts of docstrings."""
    models = (VariantList, PlanDocument, StatusDocument, SpendDocument)
    _, schema = models_json_schema([(model, "serialization") for model in models])
    for definition in schema["$defs"].values():
        definition.pop("description", None)
    return schema


if __name__ == "__main__":
    typer.echo(json.dumps(build_schema(), indent=1))
