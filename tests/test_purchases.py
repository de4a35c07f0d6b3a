"""What is planned of purchases that no part of the package knows by name."""

from pathlib import Path

import pytest

from bridgekd.cost.budget import Limits
from bridgekd.io.artifact_store import Artifact, Stats, stage
from bridgekd.io.load_recipe import load_recipe
from bridgekd.plans.plan import plan_run
from bridgekd.recipe import FrozenModel
from bridgekd.stages.query_teacher import PlannedRequests, build_query_settings, hide_answer
from bridgekd.throughput import WorkKind


class NoSettings(FrozenModel):
    """Nothing changes what these stages do."""


@stage(version=1)
def keep_even_questions(out: Path, settings: NoSettings, live: object, pool: Artifact) -> Stats:
    """A pool of one's own; a plan never runs it."""
    raise NotImplementedError


@stage(version=1)
def rank_shortest_first(out: Path, settings: NoSettings, live: object, pool: Artifact) -> Stats:
    """A ranking of one's own; a plan never runs it."""
    raise NotImplementedError


def plan_audit(planned, inputs):
    """The first three questions of the pool."""
    (pool,) = planned.inputs["pool"]
    return PlannedRequests(
        hide_answer(planned.settings.request), inputs.read_pool(pool)[:3], True, Limits(queries=3),
        "first", planned.artifact.path.name,
    )  # fmt: skip


@stage(version=1, kind=WorkKind.PAID, plan_requests=plan_audit)
def audit_teacher(out: Path, settings, live: object, pool: Artifact) -> Stats:
    """A paid stage of one's own; a plan never runs it."""
    raise NotImplementedError


def plan_work(task, work):
    recipe = load_recipe(task / "task.yaml", [])
    return plan_run(recipe, task, task / "runs", work)


def query_down(run, pool):
    ranking = run.make(rank_shortest_first, NoSettings(), pool)
    return run.query_teacher(pool, ranking)


def test_purchase_down_unknown_ranking_is_planned_within_its_budget(task):
    (purchase,) = plan_work(task, lambda run: query_down(run, run.load_pool())).purchases
    requests = purchase.requests
    assert (requests.strategy, requests.is_selected) == ("rank_shortest_first", False)
    assert (purchase.forecast.n_queries, requests.prefers_hard) == (5, True)
    (known,) = plan_work(task, query_by_seed).purchases
    assert known.forecast.unpaid.maximum <= purchase.forecast.unpaid.maximum


def query_by_seed(run):
    pool = run.load_pool()
    return run.query_teacher(pool, run.select_questions(pool, strategy="random"))


def test_purchase_from_unknown_pool_may_ask_every_question_of_its_source(task):
    def work(run):
        return query_down(run, run.make(keep_even_questions, NoSettings(), run.load_pool()))

    (purchase,) = plan_work(task, work).purchases
    assert purchase.forecast.n_queries == 5


def test_unknown_paid_stage_is_planned_as_it_says(task):
    def work(run):
        return run.make(audit_teacher, build_query_settings(run.recipe), run.load_pool())

    plan = plan_work(task, work)
    (purchase,) = plan.purchases
    assert (purchase.stage, purchase.forecast.n_queries) == ("audit_teacher", 3)
    assert plan.total_cost.unpaid == purchase.forecast.unpaid
    assert plan.train_cost == purchase.forecast


def test_purchases_of_several_stages_pay_shared_questions_once(task):
    def work(run):
        run.make(audit_teacher, build_query_settings(run.recipe), run.load_pool())
        return query_by_seed(run)

    plan = plan_work(task, work)
    alone = [p.forecast.unpaid.maximum for p in plan.purchases]
    assert max(alone) <= plan.total_cost.unpaid.maximum <= sum(alone)


def test_paid_stage_without_planned_requests_is_refused():
    with pytest.raises(TypeError, match="audit_silently has no plan_requests"):

        @stage(version=1, kind=WorkKind.PAID)
        def audit_silently(out: Path, settings: NoSettings, live: object) -> Stats:
            raise NotImplementedError
