"""What a person sees in the terminal: progress, plans, tables. It only prints what it is given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bridgekd.api import Plan
from bridgekd.core.costs import dollars
from bridgekd.core.forecast import Forecast
from bridgekd.progress import Progress as Tell
from bridgekd.stages.telling import ORDER, TITLES


@contextmanager
def shown_progress(console: Console) -> Iterator[Tell]:
    """A progress callable with a bar per piece of work; a finished one leaves its line.

    Where nobody looks on (a file, a pipe) there are no bars and each finished piece is a line.
    """
    if not console.is_terminal:
        yield lambda what, done, total: _print_done(console, what, done, total)
        return
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bars.start()
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)
        if done >= total:
            del tasks[what]

    try:
        yield tell
    finally:
        if bars.tasks:
            bars.stop()


def note_to(console: Console) -> Callable[[str], None]:
    """Prints sentences as they are: what servers and paths hold is no markup."""
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_done(console: Console, what: str, done: int, total: int) -> None:
    if done >= total:
        console.print(f"{what}: {done:,} of {total:,}")


def print_plan(console: Console, plan: Plan) -> None:
    """Stages with what is there already, then what the buying may cost."""
    table = Table(title=f"Plan of {plan.name}", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "state", "folder"):
        table.add_column(column, no_wrap=True)
    for artifact in plan.stages:
        state = "[green]there[/green]" if artifact.done else "to do"
        table.add_row(artifact.stage, state, f"[dim]{artifact.path.name}[/dim]")
    console.print(table)
    console.print(
        f"\nPool {plan.n_pool:,} questions, validation {plan.n_validation:,}, test {plan.n_test:,}."
    )
    print_buying(console, plan)


def print_buying(console: Console, plan: Plan) -> None:
    """What would be sent where, and the bill as an interval."""
    if plan.to_buy is None and plan.to_measure is None:
        console.print("Nothing is left to buy.")
        return
    if plan.to_buy is not None:
        arms = "" if plan.n_arms_buying == 1 else f" for each of {plan.n_arms_buying} purchases"
        console.print(
            f"To buy: up to {plan.to_buy.n_queries:,} answers from {plan.host}{arms}; "
            f"{_bill(plan.to_buy)}."
        )
    if plan.to_measure is not None:
        console.print(
            f"To measure the teacher: {plan.to_measure.n_queries:,} test questions, apart from the "
            f"budget; {_bill(plan.to_measure)}."
        )
    console.print(f"[dim]Each request holds: {plan.sent}. Nothing else leaves.[/dim]")


def print_metrics(console: Console, metrics: Mapping[str, Any], title: str) -> None:
    """The result table."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for column in ("accuracy", "95 % interval", "n", "queries", "spend", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    arms = metrics["arms"]
    for name in sorted(arms, key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER)):
        row = arms[name]
        low, high = row["ci95"]
        table.add_row(
            TITLES.get(name, name),
            f"{row['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            str(row["n_test"]),
            str(row["n_queries"]),
            f"${row['spend_usd']:.4f}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)


def print_status(
    console: Console, journal: Mapping[str, Any], rows: Sequence[tuple[str, str, str, str]]
) -> None:
    """Stages of a run with their state, seconds, spend and folder."""
    table = Table(title=f"{journal['name']}: {journal['state']}", title_justify="left", box=None)
    for column in ("stage", "seconds", "spend", "folder"):
        table.add_column(
            column, no_wrap=True, justify="right" if column in ("seconds", "spend") else "left"
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _bill(forecast: Forecast) -> str:
    if forecast.low_microusd is None or forecast.high_microusd is None:
        return "no price is given, so no bill can be told"
    low, high = dollars(forecast.low_microusd), dollars(forecast.high_microusd)
    return f"{low} to {high} ({forecast.basis})"
