"""Plan what a run would do and cost, from the recipe, the data, the store and the ledger.

A plan sends nothing, writes nothing and takes no lock. It uses all that is known: a ranking that
exists, or that depends only on a seed, gives the prompts, and an answer in the ledger its cost.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from bridgekd.comparison import Comparison, report_comparison, run_comparison
from bridgekd.cost.forecast import CostForecast
from bridgekd.cost.request_cost import to_microusd
from bridgekd.errors import InputError
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.io.artifact_store import Artifact, Planned, PlanStore
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.instruction_reader import read_instructions
from bridgekd.io.lazy_rows import LazyRows
from bridgekd.io.read_pool import read_pool, read_validation
from bridgekd.io.sources import read_context_length
from bridgekd.ledger.database import check_local_disk
from bridgekd.ledger.usage_history import read_reserved_microusd
from bridgekd.plans.cost import PlanContext, PlannedPurchase, collect_purchases
from bridgekd.plans.lost_ledger import describe_lost_ledger
from bridgekd.plans.stage_durations import DurationEstimate, estimate_durations
from bridgekd.plans.stage_work import PlannedData
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import Price, Recipe, find_published_price, is_loopback
from bridgekd.records import Example
from bridgekd.runs.run import Run, build_run_context
from bridgekd.stages.load_data import build_load_pool_settings, split_validation
from bridgekd.stages.model_backend import BackendSettings
from bridgekd.stages.select_questions import SelectSettings
from bridgekd.teacher.transport import ResolvedTeacher
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.throughput import WorkKind


@dataclass(frozen=True, slots=True)
class PriceInfo:
    """The price of a request as it will be charged, and its source.

    read_on: the date of the package's price table, "" for the recipe's own price. batch_factor: the
    factor that `price` includes.
    """

    model: str
    price: Price | None
    read_on: str = ""
    source: str = ""
    batch_factor: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: its stages in order, and the purchases that are still to be made.

    n_variants: seeds times budgets; 1 for a plain run. total_cost: of all purchases, with shared
    requests paid once. reserved_microusd: in the ledger, counts against the hard limit. host: the
    teacher's, or the source of the answers if nothing is sent (`is_sent`). fields_sent: the parts
    of the data that would be sent. needs_consent: False for a server on this machine that needs no
    key. uses_server: whether a stage uses the assistant's server. server_host: its host, "" on this
    machine. durations: of the local work; None if nothing is left to do. ledger_warning: a sentence
    if the ledger lacks answers that runs in the store bought.
    """

    name: str
    stages: tuple[Artifact, ...]
    n_pool: int
    n_validation: int
    n_test: int
    n_variants: int
    purchases: tuple[PlannedPurchase, ...]
    total_cost: CostForecast | None
    price: PriceInfo
    hard_limit_microusd: int | None
    reserved_microusd: int
    host: str
    is_sent: bool
    fields_sent: str
    needs_consent: bool
    uses_server: bool = False
    server_host: str = ""
    durations: DurationEstimate | None = None
    ledger_warning: str = ""

    @property
    def remaining_microusd(self) -> int | None:
        """What the hard limit leaves for new money; None without a hard limit."""
        if self.hard_limit_microusd is None:
            return None
        return max(0, self.hard_limit_microusd - self.reserved_microusd)

    @property
    def train_cost(self) -> CostForecast | None:
        """The cost of the first planned purchase under the budget, if any."""
        return self._find_forecast(is_evaluation=False)

    @property
    def eval_cost(self) -> CostForecast | None:
        """The cost of the planned evaluation of the teacher, if any."""
        return self._find_forecast(is_evaluation=True)

    def _find_forecast(self, *, is_evaluation: bool) -> CostForecast | None:
        matches = (p for p in self.purchases if p.requests.is_evaluation == is_evaluation)
        return next((p.forecast for p in matches), None)


def plan_comparison(
    recipe: Recipe,
    folder: Path,
    comparison: Comparison,
    store: Path,
    measure: Progress | None = None,
) -> Plan:
    """Return the plan of a comparison with a recipe in `folder` and a store.

    With `measure`, the missing speeds of local models are measured first and reported to it.
    """

    def work(run: Run) -> Artifact:
        return report_comparison(run, comparison, run_comparison(run, comparison))

    return plan_run(recipe, folder, store, work, comparison.n_variants, measure)


def plan_run(
    recipe: Recipe,
    folder: Path,
    store: Path,
    work: Callable[[Run], Artifact],
    n_variants: int = 1,
    measure: Progress | None = None,
) -> Plan:
    """Return the plan of `work` on a run of a recipe with a store."""
    plan_store = PlanStore(store)
    ctx = replace(build_run_context(recipe, folder), progress=measure or ignore_progress)
    run = Run(recipe, folder, plan_store, ctx)
    _check_context_lengths(run)
    work(run)
    pending = [p for p in plan_store.planned.values() if not p.artifact.done]
    pool, validation, test = _read_data(run)
    _check_quotas(plan_store.planned.values(), pool)
    instructions = read_instructions(run.instructions.path).rows if run.instructions else ()
    pairs = [(row.prompt_text, row.response) for row in instructions]
    paid = [p for p in pending if p.stage.kind is WorkKind.PAID]
    if paid:
        check_local_disk(ctx.ledger)
    context = PlanContext(run, plan_store, test, {run.load_pool().path.name: pool})
    purchases, total_cost = collect_purchases(context, paid)
    resolved, limit = resolve_teacher(recipe.teacher), recipe.hard_limit_usd
    backends = [p.settings for p in pending if isinstance(p.settings, BackendSettings)]
    uses_server = any(backend.uses_server for backend in backends)
    n_answers = {p.folder: p.forecast.n_expected or p.forecast.n_queries for p in purchases}
    data = PlannedData(pool, len(validation), len(test), pairs, n_answers)
    sends = resolved.transport.sends_to_host
    needs_no_key = is_loopback(resolved.host) and resolved.teacher.api_key_env is None
    return Plan(
        name=recipe.name,
        stages=tuple(p.artifact for p in plan_store.planned.values()),
        n_pool=len(pool),
        n_validation=len(validation),
        n_test=len(test),
        n_variants=n_variants,
        purchases=purchases,
        total_cost=total_cost,
        price=_find_price(resolved),
        hard_limit_microusd=None if limit is None else to_microusd(limit),
        reserved_microusd=read_reserved_microusd(ctx.ledger),
        host=resolved.host,
        is_sent=sends,
        fields_sent=_describe_sent_fields(recipe),
        needs_consent=sends and not needs_no_key,
        uses_server=uses_server,
        server_host=_find_remote_host(recipe) if uses_server else "",
        durations=estimate_durations(run, plan_store, data, measure=measure is not None),
        ledger_warning=describe_lost_ledger(store, ctx.ledger, folder) if purchases else "",
    )


def _check_context_lengths(run: Run) -> None:
    """Raise InputError if a model may generate more tokens than it can read.

    Such a text has no end that means anything, and its memory has no bound.
    """
    models = {"assistant": run.assistant, "student": run.student}
    for role, options in (("assistant", run.recipe.assistant), ("student", run.recipe.student)):
        n_context = read_context_length(models[role])
        limit = options.max_new_tokens
        if n_context is not None and limit != "auto" and limit > n_context:
            raise InputError(
                f"{role}.max_new_tokens is {limit:,}, and the model "
                f"{models[role].path} can read {n_context:,} tokens. Lower it.",
                key=f"{role}.max_new_tokens",
            )


def _check_quotas(planned: Iterable[Planned], pool: Iterable[Example]) -> None:
    """Raise InputError if a selection has quotas for domains and the pool has less than two."""
    settings = (p.settings for p in planned)
    if not any(isinstance(s, SelectSettings) and s.quotas == "domain" for s in settings):
        return
    domains: set[str] = set()
    for example in pool:
        domains.add(example.domain)
        if len(domains) > 1:
            return
    problem = "all questions have the same one" if any(domains) else "no question has one"
    raise InputError(
        f"select.quotas: domain gives each domain its share, but {problem}. Name the column of "
        "the domains in data.columns.domain, use select.quotas: cluster, or remove the key.",
        key="select.quotas",
    )


def _read_data(run: Run) -> tuple[LazyRows[Example], LazyRows[Example], Sequence[Example]]:
    """Return the pool, the validation split and the test questions, from the store or the data."""
    artifact, settings = run.load_pool(), build_load_pool_settings(run.recipe, run.folder)
    # The training data first: an error in it is reported before one in the test data.
    if artifact.done:
        pool, validation = read_pool(artifact), read_validation(artifact)
    else:
        pool, validation = split_validation(run.train_data, settings)
    answer_type = load_answer_type(settings.answer_type)
    test = read_examples(run.test_data.path, run.recipe.data.columns, answer_type)
    return pool, validation, test


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
    """Return the host of the assistant's server if it is another machine, else ""."""
    server = recipe.assistant.server
    host = urlsplit(server.base_url or "").hostname or "" if server is not None else ""
    return host if host and not is_loopback(host) else ""


def _describe_sent_fields(recipe: Recipe) -> str:
    """Return the parts of the user's data that a request contains, as text."""
    prompt, columns = recipe.teacher.prompt, recipe.data.columns
    parts = ["the prompt", f"the question (column {columns.question!r})"]
    parts += [f"its choices (column {columns.choices!r})"] * (columns.choices is not None)
    parts += [f"its gold answer (column {columns.answer!r})"] * prompt.reveal_answer
    parts += ["the few-shot examples"] * (prompt.few_shot is not None)
    return ", ".join(parts)
