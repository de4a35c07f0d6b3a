"""A comparison's figures in the terminal: every arm with its interval, and what it gained."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridgekd.stages.naming import in_order, title


def print_metrics(console: Console, metrics: Mapping[str, Any], name: str) -> None:
    """The result table and, where direct distillation is among the arms, each trained student
    against it.
    """
    arms = metrics["arms"]
    several = any(row["n_seeds"] > 1 for row in arms.values())
    columns = [
        "accuracy",
        "95 % interval",
        "n",
        *["seeds"] * several,
        "queries",
        "spend",
        "seconds",
    ]
    table = _table(name, "arm", columns)
    for label in in_order(arms):
        row = arms[label]
        table.add_row(
            title(label),
            f"{row['accuracy']:.1%}",
            _percents(row["ci95"]),
            str(row["n_test"]),
            *([str(row["n_seeds"])] if several else []),
            f"{row['n_queries']:g}",
            f"${row['spend_usd']:.4f}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)
    if several:
        console.print("[dim]Means over seeds; intervals over seeds and questions.[/dim]")
    told = metrics["chance"]
    console.print(f"[dim]Chance: {told['accuracy']:.1%}, {escape(told['by'])}.[/dim]")
    if metrics["versus"]:
        _print_versus(console, metrics)
    if any(row["wrong_steps"] for row in arms.values()):
        _print_rationales(console, arms)


def _print_versus(console: Console, metrics: Mapping[str, Any]) -> None:
    columns = ["points", "95 % interval", "p (Holm)", "gap recovered", "$ per point"]
    table = _table("\nAgainst direct distillation at the same budget", "arm", columns)
    for row in sorted(metrics["versus"], key=lambda r: in_order(metrics["arms"]).index(r["arm"])):
        arm = metrics["arms"][row["arm"]]
        at = f" (at {row['budget']})" if "@" in row["reference"] and "@" not in row["arm"] else ""
        table.add_row(
            title(row["arm"]) + at,
            f"{100 * row['difference']:+.1f}",
            "{:+.1f} to {:+.1f}".format(*(100 * end for end in row["ci95"])),
            f"{row['p_holm']:.2g}",
            _gap(arm["gap_recovered"]),
            _per_point(arm["gain"]),
        )
    console.print(table)
    console.print(f"[dim]{_explained(metrics)}[/dim]")


def _print_rationales(console: Console, arms: Mapping[str, Any]) -> None:
    """How an arm reasons on the test questions, and what it learnt from."""
    columns = ["words", "steps wrong or missing", "the same in its lessons"]
    table = _table("\nRationales on the test questions, 95 % intervals", "arm", columns)
    for label in in_order(arms):
        words, wrong, lessons = (arms[label][n] for n in ("words", "wrong_steps", "lessons"))
        if wrong is not None:
            told = "{:.1f} to {:.1f}".format(*words["ci95"])
            learnt = "" if lessons is None else _of_steps(lessons["wrong_steps"])
            table.add_row(title(label), told, _of_steps(wrong), learnt)
    console.print(table)


def _of_steps(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return ""
    return _percents([min(1.0, max(0.0, end)) for end in told["ci95"]])


def _explained(metrics: Mapping[str, Any]) -> str:
    over = {arm["gain"]["over"] for arm in metrics["arms"].values() if arm["gain"]}
    start = f" over: {title(over.pop())}" if over else ""
    tests = sorted({row["test"] for row in metrics["versus"]})
    n = len(metrics["versus"])
    return f"p: {' and '.join(tests)}, corrected for {n} tests. Gap and points{start}."


def _gap(told: Mapping[str, Any] | None) -> str:
    return "" if told is None else f"{told['share']:.0%} ({_percents(told['ci95'], 0)})"


def _per_point(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return ""
    each = gain["usd_per_point"]
    if each is None:
        return str(gain["verdict"])
    return "{:.4f} ({:.4f} to {:.4f})".format(each["value"], *each["ci95"])


def _percents(ends: Sequence[float], digits: int = 1) -> str:
    low, high = ends
    return f"{low:.{digits}%} to {high:.{digits}%}"


def _table(name: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=name, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")  # wrapped where it is narrow, never cut
    return table
