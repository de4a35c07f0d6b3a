"""What a run will do and what it will cost, from the recipe, the data, the store and the ledger.

Sends nothing, writes nothing, takes no lock. What is known is used exactly: a ranking that is made
(or that only a seed decides) names the prompts, and an answer in the ledger names its cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from bridgekd.comparison import Comparison, report_comparison, run_comparison
from bridgekd.cost.forecast import CostForecast
from bridgekd.cost.request_cost import to_microusd
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.io.artifact_store import Artifact, PlanStore
from bridgekd.io.dataset_reader import read_examples, read_instructions
from bridgekd.io.lazy_rows import LazyRows
from bridgekd.io.read_pool import read_pool, read_validation
from bridgekd.ledger.database import check_local_disk
from bridgekd.ledger.usage_history import read_reserved_microusd
from bridgekd.plans.cost import PlanContext, PurchaseSummary, collect_purchases
from bridgekd.plans.stage_durations import DurationEstimate, estimate_durations
from bridgekd.plans.stage_work import PlannedData
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import Price, Recipe, find_published_price, is_loopback
from bridgekd.records import Example
from bridgekd.runs.run import Run, build_run_context
from bridgekd.stages.load_data import build_load_pool_settings, split_validation
from bridgekd.stages.model_backend import BackendSettings
from bridgekd.teacher.transport import ResolvedTeacher
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.throughput import WorkKind


@dataclass(frozen=True, slots=True)
class PriceInfo:
    """The price of a call as it will be charged, and where it is from. `read` is the date of the
    package's table; empty for the recipe's own. `batch` is the factor that is in `price`.
    """

    model: str
    price: Price | None
    read_on: str = ""
    source: str = ""
    batch_factor: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: its stages in order, what of them is there, and the buying still to
    come.
    """

    name: str
    stages: tuple[Artifact, ...]
    n_pool: int
    n_validation: int
    n_test: int
    n_variants: int  # seeds times budgets; 1 for a plain run
    purchases: tuple[PurchaseSummary, ...]  # empty: everything to be paid for is there already
    total_cost: CostForecast | None  # the purchases' bill where calls that they share are paid once
    price: PriceInfo
    hard_limit_microusd: int | None
    reserved_microusd: int  # by the ledger, against the hard stop
    host: str  # where questions would be sent, or what answers come from where nothing is sent
    is_sent: bool
    fields_sent: str  # what of the data would be sent
    needs_consent: bool  # not for a server on this machine that wants no key
    uses_server: bool = False  # whether a stage to come asks the assistant's server
    server_host: str = ""  # its host, where that is not this machine
    durations: DurationEstimate | None = None  # of the local work; None: nothing is left to do

    @property
    def remaining_microusd(self) -> int | None:
        """What the hard stop leaves for new money; None: there is none."""
        if self.hard_limit_microusd is None:
            return None
        return max(0, self.hard_limit_microusd - self.reserved_microusd)

    @property
    def train_cost(self) -> CostForecast | None:
        """The first purchase under the budget, if one is to come."""
        return self._find_forecast(is_evaluation=False)

    @property
    def eval_cost(self) -> CostForecast | None:
        """The teacher on test questions, if that is to come."""
        return self._find_forecast(is_evaluation=True)

    def _find_forecast(self, *, is_evaluation: bool) -> CostForecast | None:
        found = (p for p in self.purchases if p.requests.is_evaluation == is_evaluation)
        return next((p.forecast for p in found), None)


def plan_comparison(
    recipe: Recipe,
    folder: Path,
    wanted: Comparison,
    store: Path,
    measure: Progress | None = None,
) -> Plan:
    """What carrying out `wanted` with a recipe in `folder` would do with a store. With `measure`
    the speeds that its time needs are measured first, and their progress is shown.
    """

    def work(run: Run) -> Artifact:
        return report_comparison(run, wanted, run_comparison(run, wanted))

    return plan_run(recipe, folder, store, work, wanted.n_variants, measure)


def plan_run(
    recipe: Recipe,
    folder: Path,
    store: Path,
    work: Callable[[Run], Artifact],
    n_variants: int = 1,
    measure: Progress | None = None,
) -> Plan:
    """What `work` on a run of a recipe would do with a store."""
    seen = PlanStore(store)
    ctx = replace(build_run_context(recipe, folder), progress=measure or ignore_progress)
    here = Run(recipe, folder, seen, ctx)
    work(here)
    to_do = [p for p in seen.planned.values() if not p.artifact.done]
    pool, validation, test = _read_data(here)
    instructions = read_instructions(here.instructions.path) if here.instructions else []
    pending = [p for p in to_do if p.stage.kind is WorkKind.PAID]
    if pending:
        check_local_disk(here.ctx.ledger)
    world = PlanContext(here, seen, test, {here.load_pool().path.name: pool})
    purchases, together = collect_purchases(world, pending)
    teacher, stop = resolve_teacher(recipe.teacher), recipe.hard_limit_usd
    serves = any(isinstance(p.settings, BackendSettings) and p.settings.uses_server for p in to_do)
    n_answers = {p.folder: p.forecast.n_expected or p.forecast.n_queries for p in purchases}
    data = PlannedData(pool, len(validation), len(test), instructions, n_answers)
    return Plan(
        name=recipe.name,
        stages=tuple(p.artifact for p in seen.planned.values()),
        n_pool=len(pool),
        n_validation=len(validation),
        n_test=len(test),
        n_variants=n_variants,
        purchases=purchases,
        total_cost=together,
        price=_find_price(teacher),
        hard_limit_microusd=None if stop is None else to_microusd(stop),
        reserved_microusd=read_reserved_microusd(here.ctx.ledger),
        host=teacher.host,
        is_sent=teacher.transport.sends_to_host,
        fields_sent=_sent(recipe),
        needs_consent=_needs_consent(teacher),
        uses_server=serves,
        server_host=_find_remote_host(recipe) if serves else "",
        durations=estimate_durations(here, seen, data, measure=measure is not None),
    )


def _read_data(run: Run) -> tuple[LazyRows[Example], LazyRows[Example], Sequence[Example]]:
    """Return the pool, the validation split and the test questions, made or still to be made."""
    artifact, settings = run.load_pool(), build_load_pool_settings(run.recipe, run.folder)
    # The training data first: a fault in it is reported before one in the test data.
    if artifact.done:
        pool, validation = read_pool(artifact), read_validation(artifact)
    else:
        pool, validation = split_validation(run.train_data, settings)
    answer_type = load_answer_type(settings.answer_type)
    test = read_examples(run.test_data.path, run.recipe.data.columns, answer_type)
    return pool, validation, test


def _needs_consent(teacher: ResolvedTeacher) -> bool:
    is_free_here = is_loopback(teacher.host) and teacher.teacher.api_key_env is None
    return teacher.transport.sends_to_host and not is_free_here


def _find_price(resolved: ResolvedTeacher) -> PriceInfo:
    teacher, price = resolved.teacher, resolved.teacher.list_price
    published = (
        find_published_price(teacher.effective_base_url, teacher.model)
        if teacher.price is None
        else None
    )
    return PriceInfo(
        teacher.model,
        resolved.price,
        published.read_on if published else "",
        published.source if published else "",
        price.batch_factor if price is not None and resolved.transport.has_batch_price else None,
    )


def _find_remote_host(recipe: Recipe) -> str:
    """The host of the assistant's server, if it is another machine."""
    server = recipe.assistant.server
    host = urlsplit(server.base_url or "").hostname or "" if server is not None else ""
    return host if host and not is_loopback(host) else ""


def _sent(recipe: Recipe) -> str:
    """What of the user's data a request holds, in words."""
    prompt, fields = recipe.teacher.prompt, recipe.data.columns
    parts = ["the prompt", f"the question (column {fields.question!r})"]
    parts += [f"its options (column {fields.choices!r})"] * (fields.choices is not None)
    parts += [f"its gold answer (column {fields.answer!r})"] * prompt.reveal_answer
    parts += ["the few-shot examples"] * (prompt.few_shot is not None)
    return ", ".join(parts)
