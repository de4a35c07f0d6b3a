"""What a person sees in the terminal: plans, tables. It only prints what it is given."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridgekd.cli.documents import PlanDocument, StatusDocument
from bridgekd.cost.bounds import CostBounds
from bridgekd.cost.forecast import CostForecast
from bridgekd.cost.request_cost import format_microusd
from bridgekd.plans.cost import PlannedPurchase
from bridgekd.plans.plan import Plan, PriceInfo
from bridgekd.plans.stage_durations import ACCURACY, CALIBRATION_S, DurationEstimate
from bridgekd.runs.ask import ModelAnswer

NO_PRICE_TEXT = "no price is known, so no bill can be told"
SOURCE_TEXTS = {
    "answers": "in 95 of 100, from {n:,} known answers",
    "own answers": "in 95 of 100, from {n:,} answers to these very questions",
    "recordings": "in 95 of 100, by the recordings",
    "other answers": "if they are like {n:,} answers to other requests",
    "guess": "by your guess of the mean answer, teacher.expected_completion_tokens",
}


def make_printer(console: Console) -> Callable[[str], None]:
    """Prints sentences as they are: what servers and paths hold is no markup."""
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_plan(console: Console, plan: Plan) -> None:
    """Stages with what is there already, then what the buying may cost."""
    table = Table(title=f"Plan of {plan.name}", title_justify="left", box=None, pad_edge=False)
    if plan.n_variants == 1:
        for column in ("stage", "state", "time", "folder"):
            table.add_column(column, no_wrap=True, justify="right" if column == "time" else "left")
        times = {} if plan.durations is None else plan.durations.stages
        for artifact in plan.stages:
            state = "[green]there[/green]" if artifact.done else "to do"
            name = artifact.path.name
            seconds = format_seconds(times[name].seconds) if name in times else ""
            table.add_row(artifact.stage, state, seconds, f"[dim]{name}[/dim]")
    else:
        for column in ("stage", "to do", "there"):
            table.add_column(column, no_wrap=True, justify="left" if column == "stage" else "right")
        counts = Counter((a.stage, a.done) for a in plan.stages)
        for stage in dict.fromkeys(a.stage for a in plan.stages):
            table.add_row(stage, str(counts[stage, False]), str(counts[stage, True]))
    console.print(table)
    console.print(
        f"\nPool {plan.n_pool:,} questions, validation {plan.n_validation:,}, test {plan.n_test:,}."
    )
    print_purchases(console, plan)
    if plan.durations is not None and (text := format_durations(plan.durations)):
        console.print(text, markup=False, highlight=False)


def format_durations(durations: DurationEstimate) -> str:
    """How long the local work takes, what the estimate is from, and what is not in it."""
    sentences, total = [], durations.total
    if durations.stages:
        kinds = ", ".join(f"{kind} {format_seconds(s)}" for kind, s in durations.by_kind.items())
        ends = f"{format_seconds(total / ACCURACY)} to {format_seconds(total * ACCURACY)}"
        sentences.append(f"Time on this machine: about {format_seconds(total)} ({ends}): {kinds}.")
        sentences.append("The teacher's time is not included.")
        if not all(stage.is_measured for stage in durations.stages.values()):
            source = f"by {durations.rationale_source}"
            if durations.rationale_source is None:
                source = "an assumption; set teacher.expected_completion_tokens"
            n_tokens = durations.rationale_tokens
            sentences.append(f"A rationale counts as {n_tokens:.0f} tokens ({source}).")
    if durations.missing:
        n_s = CALIBRATION_S * len(durations.missing)
        works = ", ".join(dict.fromkeys(f"{w.kind} with {w.base_name}" for w in durations.missing))
        start = "Not included" if durations.stages else "Time unknown"
        sentences.append(
            f"{start}: {works}. Run `bridgekd plan --time` (about {format_seconds(n_s)})."
        )
    if durations.n_untimed:
        n = durations.n_untimed
        sentences.append(f"Not included: {n:,} stages that use a server or an embedding model.")
    return " ".join(sentences)


def format_seconds(seconds: float) -> str:
    """Seconds, minutes or hours, whatever reads best."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def print_purchases(console: Console, plan: Plan) -> None:
    """What would be sent where, under which limits, and the bill."""
    if plan.server_host:
        console.print(
            f"The assistant's server at {plan.server_host} gets the questions of the pool and of "
            "the "
            "test set; if it costs anything, no ledger and no budget knows.",
            markup=False,
        )
    if not plan.purchases:
        console.print("Nothing is left to buy.")
        return
    for alike in _group_purchases(plan.purchases):
        purchase = alike[0]
        times = f"{len(alike)} times " if len(alike) > 1 else ""
        whole = purchase.requests.limits.queries == plan.n_pool
        asked = _describe_purchase(purchase, plan.host, times, whole=whole)
        console.print(f"{asked}; {format_unpaid(purchase.forecast)}.")
        console.print(f"[dim]  {_limits(purchase)}.{_describe_bias(purchase)}[/dim]")
        n_lacks = max(p.n_unrecorded for p in alike)
        if n_lacks:
            console.print(
                f"{n_lacks:,} of the questions it may ask have no recording: each costs a query "
                "and gives nothing."
            )
    if len(plan.purchases) > 1 and plan.total_cost is not None:
        console.print(f"Together, each question paid once: {format_joint_total(plan.total_cost)}.")
    if plan.hard_limit_microusd is not None:
        console.print(
            f"The ledger's hard stop is {format_microusd(plan.hard_limit_microusd)}; it holds "
            f"{format_microusd(plan.reserved_microusd)} of that already."
        )
    console.print(format_price(plan.price), markup=False)
    if not plan.is_sent:
        console.print(f"[dim]Answers come from {escape(plan.host)}: nothing is sent.[/dim]")
        return
    console.print(
        f"[dim]Each request holds: {escape(plan.fields_sent)}. Nothing else leaves.[/dim]"
    )


def _group_purchases(purchases: Sequence[PlannedPurchase]) -> list[list[PlannedPurchase]]:
    """Purchases of one kind, under the same limits, in the order of the first of each."""
    groups: dict[object, list[PlannedPurchase]] = {}
    for p in purchases:
        groups.setdefault(_get_terms(p), []).append(p)
    return list(groups.values())


def _get_terms(purchase: PlannedPurchase) -> tuple[object, ...]:
    requests = purchase.requests
    return (purchase.stage, requests.strategy, requests.is_selected, requests.limits)


def print_remaining(console: Console, plan: PlanDocument) -> None:
    """How far the buying of a run is, and what it will come to."""
    for purchase in plan.purchases if plan.n_variants == 1 else ():
        cost = purchase.cost
        spent = format_microusd(cost.reused_microusd)
        far = f"{cost.n_reused:,} of up to {cost.n_queries:,} answers, {spent} so far"
        if not purchase.is_selected:
            far = f"up to {cost.n_queries:,} answers; which is not chosen yet"
        console.print(
            f"{purchase.stage} ({purchase.strategy}): {far}; in all {format_total(cost)}."
        )
    if plan.n_variants > 1 and plan.total_cost is not None:
        n = len(plan.purchases)
        console.print(
            f"{n:,} purchases are still to be made; together {format_joint_total(plan.total_cost)}."
        )


def print_status(console: Console, status: StatusDocument) -> None:
    """Stages of a run with their state, seconds, spend and folder, and what is still to be paid."""
    table = Table(title=f"{status.name}: {status.state}", title_justify="left", box=None)
    for column in ("stage", "seconds", "spend", "folder"):
        table.add_column(
            column, no_wrap=True, justify="right" if column in ("seconds", "spend") else "left"
        )
    for row in status.stages:
        seconds = f"{row.seconds:.1f}" if row.seconds is not None else ""
        spend = f"${row.spend_microusd / 1e6:.4f}" if row.spend_microusd is not None else ""
        state = "" if row.state == "done" else f" ({row.state})"
        table.add_row(row.stage, seconds, spend, f"{row.folder}{state}")
    console.print(table)
    if status.remaining is not None:
        print_remaining(console, status.remaining)
    for spent in status.ledger:
        console.print(
            f"ledger: {spent.n_attempts} {spent.state} ({spent.purpose}, {spent.model}), "
            f"${spent.reserved_microusd / 1e6:.4f}"
        )


def print_answers(console: Console, question: str, replies: Sequence[ModelAnswer]) -> None:
    """What each model made of a question, side by side."""
    table = Table(title=escape(question), title_justify="left", show_lines=True)
    for column in ("model", "rationale", "answer"):
        table.add_column(column, overflow="fold")
    for reply in replies:
        table.add_row(*(escape(text) for text in (reply.model, reply.rationale, reply.answer)))
    console.print(table)


def format_unpaid(told: CostForecast) -> str:
    """What is still to be paid, in words."""
    if told.unpaid is None:
        return NO_PRICE_TEXT
    if not told.n_reused:
        return format_bounds(told.unpaid, told)
    already = f"{told.n_reused:,} of them are in the ledger and cost nothing new"
    if told.unpaid.maximum == 0:
        return f"{already}: nothing is left to pay"
    return f"{already}; the others {format_bounds(told.unpaid, told)}"


def format_total(told: CostForecast) -> str:
    """What the run is charged in all, in words."""
    return NO_PRICE_TEXT if told.total is None else format_bounds(told.total, told)


def format_joint_total(told: CostForecast) -> str:
    """The bill of several purchases together, in words."""
    bounds = told.unpaid
    if bounds is None or bounds.expected is not None or None in (bounds.ci_low, bounds.ci_high):
        return NO_PRICE_TEXT if bounds is None else format_bounds(bounds, told)
    assert bounds.ci_low is not None and bounds.ci_high is not None
    return (
        f"{_down(bounds.ci_low)} to {_up(bounds.ci_high)} "
        f"({SOURCE_TEXTS[told.source].format(n=told.n_known)}; "
        f"wide, as nobody knows yet how far the choices overlap), never above {_up(bounds.maximum)}"
    )


def format_bounds(bounds: CostBounds, told: CostForecast) -> str:
    """A bill with its interval and what that is from, and what it can never pass."""
    ceiling = _up(bounds.maximum)
    if bounds.minimum == bounds.maximum:
        return f"exactly {format_microusd(bounds.minimum)}, as all is known"
    if bounds.ci_low is None or bounds.ci_high is None:
        return (
            f"{_down(bounds.minimum)} to {ceiling}, sure bounds, as nothing is known of how long "
            f"this model's answers are (teacher.expected_completion_tokens takes your guess)"
        )
    ends = f"{_down(bounds.ci_low)} to {_up(bounds.ci_high)}"
    why = SOURCE_TEXTS[told.source].format(n=told.n_known)
    if bounds.expected is None:
        return (
            f"{ends} ({why}; wide, as nobody knows how many answers will be accepted), never "
            f"above {ceiling}"
        )
    return f"about {_round_to_nearest(bounds.expected)} ({ends} {why}), never above {ceiling}"


def format_price(by: PriceInfo) -> str:
    """The price that is used, and where it is from."""
    if by.price is None:
        return f"No price of {by.model} is known; give teacher.price to be told a bill."
    kinds = [f"${by.price.input:,.2f} in", f"${by.price.output:,.2f} out"]
    if by.price.cached_input is not None:
        kinds.append(f"${by.price.cached_input:,.2f} cached")
    if by.price.reasoning is not None:
        kinds.append(f"${by.price.reasoning:,.2f} reasoning")
    batch = "" if by.batch_factor is None else f", batch factor {by.batch_factor:g} applied"
    read = f"published, {by.source}, {by.read_on}; check it or set teacher.price"
    return (
        f"Price of {by.model}: {', '.join(kinds)} per million tokens"
        f"{batch} ({read if by.read_on else 'from the recipe'})."
    )


def _describe_purchase(purchase: PlannedPurchase, host: str, times: str, *, whole: bool) -> str:
    told = purchase.forecast
    what = f"{told.n_queries:,} answers from {host}"
    if purchase.requests.is_evaluation:
        return f"To measure the teacher: {told.n_queries:,} test questions to {host}"
    by = "the whole pool" if whole else f"{purchase.requests.strategy} choice"
    by += "" if purchase.requests.is_selected else ", not made yet"
    if told.n_expected is not None and told.n_expected < told.n_queries:
        by += f"; about {told.n_expected:,} within the limits"
    return f"To buy: {times}up to {what} ({by})"


def _limits(purchase: PlannedPurchase) -> str:
    limits = purchase.requests.limits
    parts = [] if limits.queries is None else [f"{limits.queries:,} queries"]
    parts += [] if limits.microusd is None else [format_microusd(limits.microusd)]
    parts += [] if limits.tokens is None else [f"{limits.tokens:,} tokens"]
    parts += [] if limits.accepted is None else [f"{limits.accepted:,} accepted answers"]
    apart = ", apart from the budget" if purchase.requests.is_evaluation else ""
    return f"The first of these limits ends it: {', '.join(parts)}{apart}"


def _describe_bias(purchase: PlannedPurchase) -> str:
    """What no interval from known answers can hold."""
    if not purchase.requests.prefers_hard or purchase.forecast.source != "answers":
        return ""
    return " Questions that are selected for being hard may have longer answers."


def _round_to_nearest(microusd: int) -> str:
    return _round_microusd(microusd, "ROUND_HALF_EVEN")


def _down(microusd: int) -> str:
    return _round_microusd(microusd, "ROUND_FLOOR")


def _up(microusd: int) -> str:
    return _round_microusd(microusd, "ROUND_CEILING")


def _round_microusd(microusd: int, how: str) -> str:
    """Cents from a dollar on, else three significant digits or so; never on the wrong side."""
    places = 2 if microusd >= 1_000_000 else 3 if microusd >= 10_000 else 6
    amount = (Decimal(microusd) / 1_000_000).quantize(Decimal(1).scaleb(-places), how)
    return format_microusd(int(amount * 1_000_000))
