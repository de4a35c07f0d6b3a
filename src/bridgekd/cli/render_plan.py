"""The text of a plan and of a run's status in the terminal."""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from functools import partial

from rich.console import Console
from rich.text import Text

from bridgekd.cli.documents import PlanDocument, StatusDocument
from bridgekd.cli.terminal import make_table
from bridgekd.cost.bounds import CostBounds
from bridgekd.cost.forecast import CostForecast
from bridgekd.cost.request_cost import format_microusd
from bridgekd.plans.cost import PlannedPurchase
from bridgekd.plans.plan import Plan, PriceInfo
from bridgekd.plans.stage_durations import ACCURACY, CALIBRATION_S, DurationEstimate
from bridgekd.stages.stats import describe_incomplete_answers

NO_PRICE_TEXT = "cost unknown: no price for this model"
SOURCE_TEXTS = {
    "answers": "95 % interval from {n:,} known answers",
    "own answers": "95 % interval from {n:,} answers to the same questions",
    "recordings": "95 % interval from the recordings",
    "other answers": "if the answers are like {n:,} answers to other prompts",
    "guess": "from your teacher.expected_completion_tokens",
}


def print_plan(console: Console, plan: Plan) -> None:
    """Print the stages with their state, then the purchases with their cost, then the time."""
    title = f"Plan of {plan.name}"
    if plan.n_variants == 1:
        table = make_table(title, ("stage", "state", "time", "folder"), right=("time",))
        timed = {} if plan.durations is None else plan.durations.stages
        for artifact in plan.stages:
            state = Text("done", "green") if artifact.done else Text("to do")
            folder = artifact.path.name
            seconds = format_seconds(timed[folder].seconds) if folder in timed else ""
            table.add_row(artifact.stage, state, seconds, Text(str(folder), "dim"))
    else:
        table = make_table(title, ("stage", "to do", "done"), right=("to do", "done"))
        counts = Counter((a.stage, a.done) for a in plan.stages)
        for stage in dict.fromkeys(a.stage for a in plan.stages):
            table.add_row(stage, str(counts[stage, False]), str(counts[stage, True]))
    console.print(table)
    console.print(
        f"\nPool {plan.n_pool:,} questions, validation {plan.n_validation:,}, test {plan.n_test:,}."
    )
    if plan.ledger_warning:
        console.print(plan.ledger_warning, style="yellow")
    print_purchases(console, plan)
    if plan.durations is not None and (text := format_durations(plan.durations)):
        console.print(text, highlight=False)


def format_durations(durations: DurationEstimate) -> str:
    """Return the time of the local work, its assumptions, and what it does not include."""
    sentences, total = [], durations.total
    if durations.stages:
        kinds = ", ".join(f"{kind} {format_seconds(s)}" for kind, s in durations.by_kind.items())
        ends = f"{format_seconds(total / ACCURACY)} to {format_seconds(total * ACCURACY)}"
        sentences.append(f"Time on this machine: about {format_seconds(total)} ({ends}): {kinds}.")
        sentences.append("The teacher's time is not included.")
        if not all(stage.is_measured for stage in durations.stages.values()):
            source = f"from {durations.rationale_source}"
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
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def print_purchases(console: Console, plan: Plan) -> None:
    """Print what is sent to which host, the limits, and the cost."""
    if plan.server_host:
        console.print(
            f"The assistant's server at {plan.server_host} receives the questions of the pool and "
            "of the test set. No ledger and no budget includes its cost.",
        )
    if not plan.purchases:
        console.print("Nothing is left to buy.")
        return
    for group in _group_purchases(plan.purchases):
        purchase = group[0]
        text = _describe_purchase(purchase, plan, n_times=len(group))
        console.print(f"{text}; {format_unpaid(purchase.forecast)}.")
        limits = f"  {_format_limits(purchase)}.{_describe_bias(purchase)}"
        console.print(limits, style="dim")
        if n_unrecorded := max(p.n_unrecorded for p in group):
            console.print(
                f"{n_unrecorded:,} of its possible queries have no recorded answer. Each counts in "
                "the budget and returns nothing."
            )
        for text in dict.fromkeys(map(describe_selection_check, group)):
            console.print(text, markup=False, end="\n" if text else "")
    if len(plan.purchases) > 1 and plan.total_cost is not None:
        total = format_joint_total(plan.total_cost)
        console.print(f"Together, with each question paid once: {total}.")
    if plan.hard_limit_microusd is not None:
        limit = format_microusd(plan.hard_limit_microusd)
        used = format_microusd(plan.reserved_microusd)
        console.print(f"The hard limit of the ledger is {limit}; {used} is spent or reserved.")
    console.print(format_price(plan.price))
    if not plan.is_sent:
        console.print(f"Answers come from {plan.host}. Nothing is sent.", style="dim")
        return
    console.print(f"Each request contains: {plan.fields_sent}. Nothing else is sent.", style="dim")


def describe_selection_check(purchase: PlannedPurchase) -> str:
    """Return a warning if the selected questions differ more from the pool than random ones do."""
    check = purchase.selection
    if check is None or not check.outside:
        return ""
    figures = "; ".join(
        f"{f.name} {f.value:.3g} (random: {'at most ' if f.low is None else f'{f.low:.3g} to '}"
        f"{f.high:.3g})"
        for f in check.outside
    )
    return (
        "Warning: the selected questions represent the pool worse than 95 % of random selections "
        f"do: {figures}. A model that learns from a part of the pool may fail on the rest. Compare "
        "with select.strategy: random, or set select.quotas."
    )


def _group_purchases(purchases: Sequence[PlannedPurchase]) -> list[list[PlannedPurchase]]:
    """Group purchases of one strategy with the same limits, in the order of the first of each."""
    groups: dict[object, list[PlannedPurchase]] = {}
    for purchase in purchases:
        r = purchase.requests
        key = (purchase.stage, r.strategy, r.is_selected, r.limits)
        groups.setdefault(key, []).append(purchase)
    return list(groups.values())


def print_status(console: Console, status: StatusDocument) -> None:
    """Print the stages of a run, its remaining cost, and its rows of the ledger."""
    columns = ("stage", "seconds", "spend", "folder")
    table = make_table(f"{status.name}: {status.state}", columns, right=("seconds", "spend"))
    for row in status.stages:
        seconds = f"{row.seconds:.1f}" if row.seconds is not None else ""
        spend = f"${row.spend_microusd / 1e6:.4f}" if row.spend_microusd is not None else ""
        state = "" if row.state == "done" else f" ({row.state})"
        table.add_row(row.stage, seconds, spend, f"{row.folder}{state}")
    console.print(table)
    for row in status.stages:
        counts = (row.n_queries or 0, row.n_without_answer or 0, row.n_at_reserve or 0)
        for sentence in describe_incomplete_answers(*counts):
            console.print(f"{row.stage}: {sentence}")
    if status.remaining is not None:
        _print_remaining(console, status.remaining)
    for spent in status.ledger:
        console.print(
            f"ledger: {spent.n_attempts} {spent.state} ({spent.purpose}, {spent.model}), "
            f"${spent.reserved_microusd / 1e6:.4f}"
        )


def _print_remaining(console: Console, plan: PlanDocument) -> None:
    for purchase in plan.purchases if plan.n_variants == 1 else ():
        cost = purchase.cost
        spent = format_microusd(cost.reused_microusd)
        answers = f"{cost.n_reused:,} of up to {cost.n_queries:,} answers, {spent} so far"
        if not purchase.is_selected:
            answers = f"up to {cost.n_queries:,} answers, not selected yet"
        total = NO_PRICE_TEXT if cost.total is None else format_bounds(cost.total, cost)
        console.print(f"{purchase.stage} ({purchase.strategy}): {answers}; in total {total}.")
    if plan.n_variants > 1 and plan.total_cost is not None:
        total = format_joint_total(plan.total_cost)
        console.print(f"{len(plan.purchases):,} purchases are left; together {total}.")


def format_unpaid(forecast: CostForecast) -> str:
    """Return the cost that is still to be paid."""
    if forecast.unpaid is None:
        return NO_PRICE_TEXT
    if not forecast.n_reused:
        return format_bounds(forecast.unpaid, forecast)
    reused = f"{forecast.n_reused:,} of them are in the ledger and cost nothing"
    if forecast.unpaid.maximum == 0:
        return f"{reused}: nothing is left to pay"
    return f"{reused}; the others {format_bounds(forecast.unpaid, forecast)}"


def format_joint_total(forecast: CostForecast) -> str:
    """Return the unpaid cost of several purchases together."""
    if forecast.unpaid is None:
        return NO_PRICE_TEXT
    return format_bounds(forecast.unpaid, forecast, unknown="the overlap of the selections")


def format_bounds(
    bounds: CostBounds, forecast: CostForecast, unknown: str = "the number of accepted answers"
) -> str:
    """Return a cost with its interval, the source of the interval, and the maximum.

    `unknown` is what makes an interval without an expected value wide.
    """
    maximum = _round_up(bounds.maximum)
    if bounds.minimum == bounds.maximum:
        return f"exactly {format_microusd(bounds.minimum)}"
    if bounds.ci_low is None or bounds.ci_high is None:
        return (
            f"{_round_down(bounds.minimum)} to {maximum} (bounds only: no answers from this model "
            "yet; set teacher.expected_completion_tokens for an estimate)"
        )
    interval = f"{_round_down(bounds.ci_low)} to {_round_up(bounds.ci_high)}"
    source = SOURCE_TEXTS[forecast.source].format(n=forecast.n_known)
    if bounds.expected is None:
        return f"{interval} ({source}; wide: {unknown} is unknown), at most {maximum}"
    return f"about {_round_nearest(bounds.expected)} ({interval}, {source}), at most {maximum}"


def format_price(info: PriceInfo) -> str:
    """Return the price that the plan uses, and its source."""
    price = info.price
    if price is None:
        return f"No price for {info.model} is known. Set teacher.price to get the cost."
    kinds = {
        "in": price.input,
        "out": price.output,
        "cached": price.cached_input,
        "reasoning": price.reasoning,
    }
    texts = ", ".join(f"${usd:,.2f} {kind}" for kind, usd in kinds.items() if usd is not None)
    batch = "" if info.batch_factor is None else f", batch factor {info.batch_factor:g} applied"
    published = f"published, {info.source}, {info.read_on}; check it or set teacher.price"
    source = published if info.read_on else "from the recipe"
    return f"Price of {info.model}: {texts} per million tokens{batch} ({source})."


def _describe_purchase(purchase: PlannedPurchase, plan: Plan, n_times: int) -> str:
    forecast, requests = purchase.forecast, purchase.requests
    if requests.is_evaluation:
        return f"To measure the teacher: {forecast.n_queries:,} test questions to {plan.host}"
    is_full_pool = requests.limits.queries == plan.n_pool * requests.n_samples
    selection = "the full pool" if is_full_pool else f"selected by {requests.strategy}"
    selection += f", {requests.n_samples} samples per question" if requests.n_samples > 1 else ""
    selection += "" if requests.is_selected else ", not selected yet"
    if forecast.n_expected is not None and forecast.n_expected < forecast.n_queries:
        selection += f"; about {forecast.n_expected:,} within the limits"
    times = f"{n_times} times " if n_times > 1 else ""
    return f"To buy: {times}up to {forecast.n_queries:,} answers from {plan.host} ({selection})"


def _format_limits(purchase: PlannedPurchase) -> str:
    limits = purchase.requests.limits
    parts = [] if limits.queries is None else [f"{limits.queries:,} queries"]
    parts += [] if limits.microusd is None else [format_microusd(limits.microusd)]
    parts += [] if limits.tokens is None else [f"{limits.tokens:,} tokens"]
    parts += [] if limits.accepted is None else [f"{limits.accepted:,} accepted answers"]
    separate = ", separate from the budget" if purchase.requests.is_evaluation else ""
    return f"It stops at the first of these limits: {', '.join(parts)}{separate}"


def _describe_bias(purchase: PlannedPurchase) -> str:
    """Return a warning if the known answers may be shorter than those of hard questions."""
    if not purchase.requests.prefers_hard or purchase.forecast.source != "answers":
        return ""
    return " Questions that are selected because they are hard may have longer answers."


def _round_microusd(microusd: int, rounding: str) -> str:
    """Round to cents from one dollar on, else to about three significant digits."""
    places = 2 if microusd >= 1_000_000 else 3 if microusd >= 10_000 else 6
    amount = (Decimal(microusd) / 1_000_000).quantize(Decimal(1).scaleb(-places), rounding)
    return format_microusd(int(amount * 1_000_000))


_round_nearest = partial(_round_microusd, rounding=ROUND_HALF_EVEN)
_round_down = partial(_round_microusd, rounding=ROUND_FLOOR)
_round_up = partial(_round_microusd, rounding=ROUND_CEILING)
