"""The paid stages: query_teacher and evaluate_teacher. Only they open the ledger."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.budget import Limits
from bridgekd.cost.budget_slice import FULL_BUDGET, BudgetSlice, compute_limits
from bridgekd.cost.request_cost import to_microusd
from bridgekd.errors import InputError
from bridgekd.grading.grade import check_rationale, grade_answer
from bridgekd.io.artifact_store import Artifact, Planned, stage
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_few_shot, read_pool
from bridgekd.io.row_files import read_column, read_rows, write_rows
from bridgekd.ledger.ledger import Ledger, Purpose
from bridgekd.prompts import render_teacher_prompt
from bridgekd.recipe import (
    BudgetOptions,
    CountOrPercent,
    FrozenModel,
    Price,
    Recipe,
    SparseModel,
    TeacherPromptOptions,
    resolve_count,
)
from bridgekd.records import Completion, Example, Pick, Prediction
from bridgekd.rng import sample_indices
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.stages.dropped_answers import DroppedAnswers
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.select_questions import (
    SelectSettings,
    name_prefix_group,
    rank_without_models,
)
from bridgekd.stages.stats import PurchaseStats
from bridgekd.teacher.buy_answers import PurchaseResult, buy_answers, read_api_key
from bridgekd.teacher.purchase_spec import AcceptFunction, ignore_answer
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.throughput import WorkKind


class TeacherRequestSettings(FrozenModel):
    """All of a request that reaches the teacher, and its price. `fields`: all but the messages."""

    provider: str
    model: str
    fields: dict[str, JsonValue]
    prompt: TeacherPromptOptions
    price: Price | None


class QueryTeacherSettings(SparseModel):
    """`accept`: which answers budget.accepted_rationales counts; None without that limit."""

    request: TeacherRequestSettings
    budget: BudgetOptions
    budget_slice: BudgetSlice
    n_samples: int = 1
    accept: Literal["correct", "all"] | None

    OPTIONAL = ("n_samples",)

    def compute_limits(self, n_pool: int) -> Limits:
        """Return the limits of a purchase from a pool."""
        return compute_limits(self.budget, n_pool, self.budget_slice, self.n_samples)


class EvaluateTeacherSettings(FrozenModel):
    request: TeacherRequestSettings
    queries: CountOrPercent
    seed: int


@dataclass(frozen=True, slots=True)
class PlannedRequests:
    """The questions that a paid stage may send, and the limits of its purchase.

    Each question is `n_samples` requests. is_selected: `examples` are the questions in their order,
    up to the limits. If False, the questions to send are not known yet. strategy: the name of what
    selects them. prefix_group: purchases of one group begin with the same questions, so the longest
    one sends all that the others send. prefers_hard: whether hard questions are selected.
    is_evaluation: the purchase evaluates the teacher and is not a part of the budget.
    """

    request: TeacherRequestSettings
    examples: Sequence[Example]
    is_selected: bool
    limits: Limits
    strategy: str
    prefix_group: str
    n_samples: int = 1
    prefers_hard: bool = False
    is_evaluation: bool = False

    @property
    def is_query_limited(self) -> bool:
        """Whether only the number of requests ends the purchase."""
        return self.limits == Limits(queries=self.limits.queries)


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan has read: the data, and every planned artifact by its folder."""

    planned: Mapping[str, Planned]
    read_pool: Callable[[Artifact], Sequence[Example]]
    test: Sequence[Example]


def build_request_settings(recipe: Recipe) -> TeacherRequestSettings:
    """Return what the recipe's requests to the teacher depend on."""
    teacher = recipe.teacher
    return TeacherRequestSettings(
        provider=teacher.provider,
        model=teacher.model,
        fields=teacher.build_request_fields(0),
        prompt=teacher.prompt,
        price=resolve_teacher(teacher).price,
    )


def build_query_settings(
    recipe: Recipe,
    *,
    budget_slice: BudgetSlice = FULL_BUDGET,
    queries: CountOrPercent | None = None,
) -> QueryTeacherSettings:
    """Return what a purchase depends on; `queries` replaces that limit of the recipe's budget.

    Raises InputError if several samples of a question would be equal.
    """
    budget, rule, teacher = recipe.budget, recipe.check.filter, recipe.teacher
    is_greedy = teacher.n_samples > 1 and teacher.temperature == 0
    if is_greedy and resolve_teacher(teacher).transport.is_paid:
        raise InputError(
            f"teacher.n_samples of {teacher.n_samples} buys the same answer several times at "
            "teacher.temperature 0. Set a temperature above 0, such as 0.7, or n_samples: 1."
        )
    accept = None if budget.accepted_rationales is None or rule == "confident" else rule
    if queries is not None:
        budget = budget.model_copy(update={"queries": queries})
    request = build_request_settings(recipe)
    return QueryTeacherSettings(
        request=request,
        budget=budget,
        budget_slice=budget_slice,
        n_samples=teacher.n_samples,
        accept=accept,
    )


def build_evaluate_teacher_settings(recipe: Recipe) -> EvaluateTeacherSettings:
    """Return what the teacher's own predictions depend on. No prompt shows the gold answer."""
    request, queries = hide_answer(build_request_settings(recipe)), recipe.evaluate.teacher_queries
    return EvaluateTeacherSettings(request=request, queries=queries, seed=recipe.seed)


def plan_ranked_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `query_teacher`: a ranking from its top, within a slice of the budget.

    The order is known if the ranking is done, or if its strategy needs no model.
    """
    settings = stage.settings
    assert isinstance(settings, QueryTeacherSettings)
    (pool,), (ranking,) = stage.inputs["pool"], stage.inputs["ranking"]
    examples = inputs.read_pool(pool)
    limits = settings.compute_limits(len(examples))
    source = inputs.planned[ranking.path.name]
    order: Sequence[str] | None = None
    if ranking.done:
        order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    strategy, group, prefers_hard = source.stage.name, ranking.path.name, True
    if isinstance(select := source.settings, SelectSettings):
        order = rank_without_models(source, select, examples) if order is None else order
        strategy, group = select.strategy.name, name_prefix_group(source, select)
        rule = STRATEGIES.load(select.strategy)
        prefers_hard = rule.needs_difficulty and not rule.is_random_draw
    if order is not None:
        ids = order[: count_questions(limits, settings.n_samples)]
        by_id = index_by_id(examples, ids)
        examples = [by_id[id] for id in ids]
    return PlannedRequests(
        settings.request,
        examples,
        order is not None,
        limits,
        strategy,
        group,
        settings.n_samples,
        prefers_hard,
    )


def count_questions(limits: Limits, n_samples: int) -> int | None:
    """Return the questions that a limit of queries buys; None without this limit."""
    return None if limits.queries is None else limits.queries // n_samples


@stage(2, WorkKind.PAID, "The teacher's answers", plan_ranked_requests)
def query_teacher(
    output_dir: Path,
    settings: QueryTeacherSettings,
    ctx: RunContext,
    pool: Artifact,
    ranking: Artifact,
    *few_shot: Artifact,
) -> PurchaseStats:
    """Query the teacher down the ranking until the first limit of the budget is reached."""
    examples, answer_type = read_pool(pool), read_answer_type(pool)
    limits, n_samples = settings.compute_limits(len(examples)), settings.n_samples
    ids = read_column(ranking.path / "ranking.parquet", Pick, "id")
    n_questions = count_questions(limits, n_samples)
    if n_questions is not None:  # one more, so that the limit is known to be the end
        ids = ids[: n_questions + 1]
    by_id, rule = index_by_id(examples, ids), settings.accept
    questions = [by_id[id] for id in ids]

    def accept(id: str, state: str, text: str) -> bool:
        assert rule is not None
        return check_rationale(by_id[id], text, answer_type, "teacher", rule, state=state).kept

    dropped = DroppedAnswers(by_id, answer_type, ctx.check)
    is_paid = resolve_teacher(ctx.teacher).transport.is_paid
    purchase = _buy_answers(
        iter_requests(settings.request, questions, few_shot, n_samples), limits, "train", ctx,
        accept if rule else None, on_answer=dropped.add if is_paid else ignore_answer,
    )  # fmt: skip
    requests = iter_requests(settings.request, questions, (), n_samples)
    rows, n_unrecorded = _mark_unrecorded(purchase.completions, requests, ctx)
    write_rows(output_dir / "completions.parquet", Completion, rows)
    return _build_stats(purchase, rows, n_unrecorded)


def plan_evaluation_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `evaluate_teacher`, which are all known."""
    settings = stage.settings
    assert isinstance(settings, EvaluateTeacherSettings)
    examples = sample_test_questions(settings, inputs.test)
    return PlannedRequests(
        request=settings.request,
        examples=examples,
        is_selected=True,
        limits=Limits(queries=len(examples)),
        strategy="random",
        prefix_group=stage.artifact.path.name,
        is_evaluation=True,
    )


@stage(3, WorkKind.PAID, "The teacher on test questions", plan_evaluation_requests)
def evaluate_teacher(
    output_dir: Path,
    settings: EvaluateTeacherSettings,
    ctx: RunContext,
    pool: Artifact,
    test: Artifact,
    *few_shot: Artifact,
) -> PurchaseStats:
    """Query the teacher for sampled test questions. This is not a part of the budget."""
    examples = read_rows(test.path / "test.parquet", Example)
    questions = sample_test_questions(settings, examples)
    limits = Limits(queries=len(questions))
    requests = iter_requests(settings.request, questions, few_shot)
    purchase = _buy_answers(requests, limits, "measure", ctx)
    by_id, answer_type = {e.id: e for e in questions}, read_answer_type(pool)
    rows = [
        replace(
            grade_answer(by_id[c.id], c.text, answer_type),
            n_tokens=c.n_completion_tokens,
            is_cut_off=c.state == "truncated",
        )
        for c in purchase.completions
    ]
    write_rows(output_dir / "predictions.parquet", Prediction, rows)
    return _build_stats(purchase, purchase.completions)


def sample_test_questions(
    settings: EvaluateTeacherSettings, test: Sequence[Example]
) -> list[Example]:
    """Return the test questions for the teacher."""
    n = resolve_count(settings.queries, len(test))
    return [test[i] for i in sample_indices(settings.seed, "teacher test", n=n, of=len(test))]


def hide_answer(request: TeacherRequestSettings) -> TeacherRequestSettings:
    """Return the same request without the gold answer in its prompt."""
    prompt = request.prompt.model_copy(update={"reveal_answer": False})
    return request.model_copy(update={"prompt": prompt})


def iter_requests(
    request: TeacherRequestSettings,
    questions: Iterable[Example],
    few_shot: Sequence[Artifact],
    n_samples: int = 1,
) -> Iterator[TeacherRequest]:
    """Yield `n_samples` requests per question, in rank order. Each is built when it is needed."""
    shots, prompt = read_few_shot(few_shot), request.prompt
    for rank, example in enumerate(questions):
        messages = render_teacher_prompt(
            example,
            system=prompt.system,
            template=prompt.template,
            reveal_answer=prompt.reveal_answer,
            shots=shots,
        )
        for sample in range(n_samples):
            yield TeacherRequest(example.id, rank, messages, sample, example.question)


def _mark_unrecorded(
    completions: Sequence[Completion], requests: Iterable[TeacherRequest], ctx: RunContext
) -> tuple[Sequence[Completion], int | None]:
    """Return the completions, with the state `unrecorded` where recordings have no answer, and the
    number of these; None for a teacher that is not replayed. The completions are those of the first
    requests.
    """
    answers = resolve_teacher(ctx.teacher).load_answers()
    if answers is None:
        return completions, None
    rows = [
        c if answers.has_answer(request) else replace(c, state="unrecorded")
        for c, request in zip(completions, requests, strict=False)
    ]
    n = sum(row.state == "unrecorded" for row in rows)
    if n:
        ctx.notify(
            f"{n:,} of the {len(rows):,} queries have no recorded answer in {answers.source}. "
            "Their rows are unrecorded. Each counts as a query and costs no money."
        )
    return rows, n


def _buy_answers(
    requests: Iterable[TeacherRequest],
    limits: Limits,
    purpose: Purpose,
    ctx: RunContext,
    accept: AcceptFunction | None = None,
    on_answer: Callable[[str, str, str], None] = ignore_answer,
) -> PurchaseResult:
    hard_limit = None if ctx.hard_limit_usd is None else to_microusd(ctx.hard_limit_usd)
    with Ledger(ctx.ledger, hard_limit, on_wait=ctx.notify) as ledger:
        return buy_answers(
            list(requests),
            ledger,
            teacher=ctx.teacher,
            limits=limits,
            run=ctx.run,
            purpose=purpose,
            api_key=read_api_key(ctx.teacher),
            progress=ctx.progress,
            accept=accept,
            on_answer=on_answer,
            note=ctx.notify,
        )


def _build_stats(
    purchase: PurchaseResult, rows: Sequence[Completion], n_unrecorded: int | None = None
) -> PurchaseStats:
    return PurchaseStats(
        n_queries=len(purchase.completions),
        spend_microusd=purchase.charged_microusd,
        n_tokens=purchase.charged_tokens,
        stop_reason=purchase.stop_reason,
        n_requests_sent=purchase.n_requests_sent,
        n_reused=purchase.n_reused,
        new_spend_microusd=purchase.spent_microusd,
        n_unrecorded=n_unrecorded,
        n_without_answer=sum(row.state == "refused" for row in rows),
        n_at_reserve=purchase.n_at_reserve,
    )
