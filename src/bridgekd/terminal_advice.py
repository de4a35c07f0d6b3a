"""What a person sees of `plan --advise`: the pilot's plan, what each arm would reach, a verdict."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bridgekd.planning import Plan
from bridgekd.terminal import print_buying

TITLES = {
    "tutored": "Student, through an assistant",
    "direct": "Student, direct",
    "answers_only": "Student, answers alone",
    "instructed": "Student, instructed",
    "base": "Student, untouched",
}
METHODS = {
    "tutored": "bridge or random",
    "direct": "direct",
    "answers_only": "answers_only",
    "instructed": "none",
    "base": "none",
}
NOTHING_PAID = ("answers_only", "instructed", "base")


def print_pilot(console: Console, plan: Plan) -> None:
    """What the pilot still has to do, and what it may cost."""
    todo = Counter(a.stage for a in plan.stages if not a.done)
    if not todo:
        console.print("The pilot is there already.")
        return
    trained = sum(n for stage, n in todo.items() if stage.startswith(("train_", "warm_", "instr")))
    console.print(
        f"The pilot: {trained} trainings, {todo['annotate']} times rationales for the pool, "
        f"{todo['predict']} models to measure; all of that on this machine."
    )
    print_buying(console, plan)
    console.print("[dim]direct and random ask these questions first, and then recall them.[/dim]")


def print_advice(console: Console, told: Mapping[str, Any]) -> None:
    """What each arm would reach at the budget, and whether an assistant pays off."""
    n, measured = told["n_asked"], told["n_measured"]
    table = Table(title=_title(told), title_justify="left", box=None, pad_edge=False)
    for column in ("arm", "would reach", "95 % interval", "is the best"):
        table.add_column(column, no_wrap=True, justify="left" if column == "arm" else "right")
    for arm, reach in sorted(told["arms"].items(), key=lambda row: -row[1]["mean"]):
        ends = f"{reach['low']:.1%} to {reach['high']:.1%}"
        table.add_row(TITLES[arm], f"{reach['mean']:.1%}", ends, f"{told['best'][arm]:.0%}")
    console.print(table)
    console.print(
        f"[dim]From {n:,} answers of the teacher, measured on {measured:,} questions of the pool "
        "that no model saw. The assistant's questions were drawn at random; choosing them may do "
        "better or worse.[/dim]"
    )
    gain = told["gain"]
    console.print(
        f"An assistant against direct distillation: {100 * gain['mean']:+.1f} points "
        f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}), better in "
        f"{told['p_gain']:.0%} of runs."
    )
    console.print(f"[bold]{verdict(told)}[/bold]", soft_wrap=True)


def _title(told: Mapping[str, Any]) -> str:
    return f"With {told['budget']:,} teacher answers and a pool of {told['n_pool']:,}"


def verdict(told: Mapping[str, Any]) -> str:
    """The verdict in a sentence or two, with what to do."""
    p, leader = told["best"]["tutored"], told["leader"]
    if told["verdict"] == "assistant":
        return f"An assistant pays off here ({p:.0%} sure): run bridge or random."
    if told["verdict"] == "no assistant":
        named = TITLES[leader].lower()
        free = "; it costs nothing" if leader in NOTHING_PAID else ""
        return (
            f"An assistant does not pay off here ({1 - p:.0%} sure): {named} is the likeliest to "
            f"be the best ({told['best'][leader]:.0%}){free}. Method: {METHODS[leader]}."
        )
    return f"The pilot cannot tell ({p:.0%} for an assistant). {what_would(told)}"


def what_would(told: Mapping[str, Any]) -> str:
    """What would tell more, where the pilot cannot."""
    mean = told["p_if_runs_were_alike"]
    if max(mean, 1 - mean) >= told["sure"]:
        return (
            "On average over runs it could, but single runs differ by as much: it hardly matters, "
            "or compare the arms over several seeds."
        )
    return (
        "A larger pilot tells more: --set advise.share=0.4; its answers are not paid for twice. "
        "Or compare the arms themselves."
    )
