"""The paid stages: query_teacher and evaluate_teacher. Only they open the ledger."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.budget import Limits
from bridgekd.cost.budget_slice import FULL_BUDGET, BudgetSlice, compute_limits
from bridgekd.cost.request_cost import to_microusd
from bridgekd.grading.answer_type import AnswerType
from bridgekd.grading.grade import check_rationale, grade_answer
from bridgekd.io.artifact_store import Artifact, Planned, stage
from bridgekd.io.read_pool import index_by_id, read_answer_type, read_few_shot, read_pool
from bridgekd.io.row_files import read_column, read_rows, write_rows
from bridgekd.ledger.ledger import Ledger
from bridgekd.prompts import render_teacher_prompt
from bridgekd.recipe import (
    BudgetOptions,
    CountOrPercent,
    FrozenModel,
    Price,
    Recipe,
    TeacherPromptOptions,
    resolve_count,
)
from bridgekd.records import Completion, Example, Pick, Prediction
from bridgekd.rng import sample_indices
from bridgekd.selection.strategies import STRATEGIES
from bridgekd.stages.run_context import RunContext
from bridgekd.stages.select_questions import (
    SelectSettings,
    name_prefix_group,
    rank_without_models,
)
from bridgekd.stages.stats import PurchaseStats
from bridgekd.teacher.buy_answers import PurchaseResult, buy_answers, read_api_key
from bridgekd.teacher.pending_request import AcceptFunction
from bridgekd.teacher.transports import resolve_teacher
from bridgekd.throughput import WorkKind

AcceptRule = Literal["correct", "all"]


class TeacherRequestSettings(FrozenModel):
    """Everything of a request that reaches the teacher, and its price."""

    provider: str
    model: str
    fields: dict[str, Any]  # the request beside its messages
    prompt: TeacherPromptOptions
    price: Price | None


class QueryTeacherSettings(FrozenModel):
    """`accept`: which answers the budget counts as accepted; None if it does not limit them."""

    request: TeacherRequestSettings
    budget: BudgetOptions
    budget_slice: BudgetSlice
    accept: AcceptRule | None


class EvaluateTeacherSettings(FrozenModel):
    request: TeacherRequestSettings
    queries: CountOrPercent
    seed: int


@dataclass(frozen=True, slots=True)
class PlannedRequests:
    """The questions that a paid stage may send, and the limits of its purchase.

    is_selected: `examples` are the questions in their order, as far as the limits reach; else it is
    not known yet which of them will be sent. strategy: the name of what selects them. prefix_group:
    purchases of the same group begin with the same questions, so one of them sends all that the
    others send. prefers_hard: whether questions are selected for being hard. is_evaluation: whether
    the purchase measures the teacher and is not a part of the budget.
    """

    request: TeacherRequestSettings
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


def build_request_settings(recipe: Recipe) -> TeacherRequestSettings:
    """Return how the recipe's teacher is asked."""
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
    """Return what a purchase depends on; `queries` replaces that limit of the recipe's budget."""
    budget, rule = recipe.budget, recipe.check.filter
    accept = None if budget.accepted_rationales is None or rule == "confident" else rule
    if queries is not None:
        budget = budget.model_copy(update={"queries": queries})
    request = build_request_settings(recipe)
    return QueryTeacherSettings(
        request=request, budget=budget, budget_slice=budget_slice, accept=accept
    )


def build_evaluate_teacher_settings(recipe: Recipe) -> EvaluateTeacherSettings:
    """Return what the teacher's own predictions depend on."""
    request, queries = build_request_settings(recipe), recipe.evaluate.teacher_queries
    return EvaluateTeacherSettings(request=request, queries=queries, seed=recipe.seed)


def plan_ranked_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `query_teacher`: a ranking from its top, within a part of a budget.

    The order of a ranking is known when it is made, or if it is a selection that needs no model.
    """
    settings = stage.settings
    assert isinstance(settings, QueryTeacherSettings)
    (pool,), (ranking,) = stage.inputs["pool"], stage.inputs["ranking"]
    examples = inputs.read_pool(pool)
    limits = compute_limits(settings.budget, len(examples), settings.budget_slice)
    source = inputs.planned[ranking.path.name]
    order: Sequence[str] | None = None
    if ranking.done:
        order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    strategy, group, prefers_hard = source.stage.name, ranking.path.name, True
    if isinstance(select := source.settings, SelectSettings):
        order = rank_without_models(source, select, examples) if order is None else order
        strategy, group = select.strategy.name, name_prefix_group(source, select)
        prefers_hard = STRATEGIES.load(select.strategy).needs_difficulty
    if order is not None:
        by_id = index_by_id(examples, order[: limits.queries])
        examples = [by_id[id] for id in order[: limits.queries]]
    return PlannedRequests(
        settings.request, examples, order is not None, limits, strategy, group, prefers_hard
    )


@stage(
    version=2,
    kind=WorkKind.PAID,
    title="The teacher's answers",
    plan_requests=plan_ranked_requests,
)
def query_teacher(
    output_dir: Path,
    settings: QueryTeacherSettings,
    ctx: RunContext,
    pool: Artifact,
    ranking: Artifact,
    *few_shot: Artifact,
) -> PurchaseStats:
    """Asks the teacher down the ranking until the first limit of the budget ends it."""
    examples = read_pool(pool)
    limits = compute_limits(settings.budget, len(examples), settings.budget_slice)
    ids = read_column(ranking.path / "ranking.parquet", Pick, "id")
    if limits.queries is not None:  # one more, so that the limit is seen to be the end
        ids = ids[: limits.queries + 1]
    by_id = index_by_id(examples, ids)
    questions = [by_id[id] for id in ids]
    accept = _make_accept_function(by_id, read_answer_type(pool), settings.accept)
    bought = _buy_answers(settings.request, questions, few_shot, limits, "train", ctx, accept)
    rows, n_unrecorded = _mark_unrecorded(bought.completions, settings.request, questions, ctx)
    write_rows(output_dir / "completions.parquet", Completion, rows)
    return _build_stats(bought, n_unrecorded)


def plan_evaluation_requests(stage: Planned, inputs: PlanInputs) -> PlannedRequests:
    """Return the requests of `evaluate_teacher`: all of them are known."""
    settings = stage.settings
    assert isinstance(settings, EvaluateTeacherSettings)
    examples = sample_test_questions(settings, inputs.test)
    return PlannedRequests(
        request=hide_answer(settings.request),
        examples=examples,
        is_selected=True,
        limits=Limits(queries=len(examples)),
        strategy="random",
        prefix_group=stage.artifact.path.name,
        is_evaluation=True,
    )


@stage(
    version=2,
    kind=WorkKind.PAID,
    title="The teacher on test questions",
    plan_requests=plan_evaluation_requests,
)
def evaluate_teacher(
    output_dir: Path,
    settings: EvaluateTeacherSettings,
    ctx: RunContext,
    pool: Artifact,
    test: Artifact,
    *few_shot: Artifact,
) -> PurchaseStats:
    """The teacher on sampled test questions, paid apart from the budget."""
    examples = read_rows(test.path / "test.parquet", Example)
    questions = sample_test_questions(settings, examples)
    limits = Limits(queries=len(questions))
    bought = _buy_answers(
        hide_answer(settings.request), questions, few_shot, limits, "measure", ctx
    )
    by_id, answer_type = {e.id: e for e in questions}, read_answer_type(pool)
    rows = [grade_answer(by_id[c.id], c.text, answer_type) for c in bought.completions]
    write_rows(output_dir / "predictions.parquet", Prediction, rows)
    return _build_stats(bought)


def sample_test_questions(
    settings: EvaluateTeacherSettings, test: Sequence[Example]
) -> list[Example]:
    """Return the test questions that the teacher is asked."""
    n = resolve_count(settings.queries, len(test))
    return [test[i] for i in sample_indices(settings.seed, "teacher test", n=n, of=len(test))]


def hide_answer(request: TeacherRequestSettings) -> TeacherRequestSettings:
    """Return the same request without the gold answer in its prompt."""
    prompt = request.prompt.model_copy(update={"reveal_answer": False})
    return request.model_copy(update={"prompt": prompt})


def iter_requests(
    request: TeacherRequestSettings, questions: Iterable[Example], few_shot: Sequence[Artifact]
) -> Iterator[TeacherRequest]:
    """Yield one request per question, in rank order; each is made when it is needed."""
    turns, prompt = read_few_shot(few_shot), request.prompt
    for rank, example in enumerate(questions):
        yield TeacherRequest(
            id=example.id,
            rank=rank,
            messages=render_teacher_prompt(
                example,
                system=prompt.system,
                template=prompt.template,
                reveal_answer=prompt.reveal_answer,
                shots=turns,
            ),
            question=example.question,
        )


def _make_accept_function(
    examples: Mapping[str, Example], answer_type: AnswerType, rule: AcceptRule | None
) -> AcceptFunction | None:
    """Whether an answer will pass the check, by an example's id; None if no one counts them."""
    if rule is None:
        return None
    return lambda id, state, text: (
        check_rationale(examples[id], text, answer_type, "teacher", rule, state=state).kept
    )


def _mark_unrecorded(
    completions: Sequence[Completion],
    request: TeacherRequestSettings,
    questions: Sequence[Example],
    ctx: RunContext,
) -> tuple[Sequence[Completion], int | None]:
    """The completions with state `unrecorded` where a replayed teacher had none, and their count;
    None for a teacher that is not replayed.
    """
    answers = resolve_teacher(ctx.teacher).load_answers()
    if answers is None:
        return completions, None
    missing = answers.find_missing(iter_requests(request, questions, ()))
    rows = [replace(c, state="unrecorded") if c.id in missing else c for c in completions]
    n = sum(row.state == "unrecorded" for row in rows)
    if n:
        ctx.notify(
            f"{n:,} of the {len(rows):,} questions asked have no recording in "
            f"{answers.source}: their rows are unrecorded and cost a query, no money."
        )
    return rows, n


def _buy_answers(
    request: TeacherRequestSettings,
    questions: Sequence[Example],
    few_shot: Sequence[Artifact],
    limits: Limits,
    purpose: Literal["train", "measure"],
    ctx: RunContext,
    accept: AcceptFunction | None = None,
) -> PurchaseResult:
    hard_stop = None if ctx.hard_stop_usd is None else to_microusd(ctx.hard_stop_usd)
    with Ledger(ctx.ledger, hard_stop, on_wait=ctx.notify) as ledger:
        return buy_answers(
            list(iter_requests(request, questions, few_shot)),
            ledger,
            teacher=ctx.teacher,
            limits=limits,
            run=ctx.run,
            purpose=purpose,
            api_key=read_api_key(ctx.teacher),
            progress=ctx.progress,
            accept=accept,
            note=ctx.notify,
        )


def _build_stats(bought: PurchaseResult, n_unrecorded: int | None = None) -> PurchaseStats:
    return PurchaseStats(
        n_queries=len(bought.completions),
        spend_microusd=bought.charged_microusd,
        n_tokens=bought.charged_tokens,
        stop_reason=bought.stop_reason,
        n_requests_sent=bought.n_requests_sent,
        n_reused=bought.n_reused,
        new_spend_microusd=bought.spent_microusd,
        n_unrecorded=n_unrecorded,
    )
