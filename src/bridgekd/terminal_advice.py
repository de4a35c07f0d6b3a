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
        table.add_row(TITLES[arm], f"{reach['mean']:.1%}", ends, _percent(told["best"][arm]))
    console.print(table)
    console.print(
        f"[dim]From {n:,} answers of the teacher, measured on {measured:,} questions of the pool "
        "that no model saw. The assistant's questions were drawn at random; choosing them may do "
        "better or worse.[/dim]"
    )
    gain = told["gain"]
    console.print(
        f"An assistant against direct distillation: {100 * gain['mean']:+.1f} points "
        f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}); a run with one is better with "
        f"probability {_percent(told['p_gain'])}."
    )
    console.print(f"[bold]{verdict(told)}[/bold]", soft_wrap=True)


def _title(told: Mapping[str, Any]) -> str:
    return f"With {told['budget']:,} teacher answers and a pool of {told['n_pool']:,}"


def verdict(told: Mapping[str, Any]) -> str:
    """The verdict in a sentence or two, with what to do."""
    p, leader = told["best"]["tutored"], told["leader"]
    if told["verdict"] == "assistant":
        return f"An assistant pays off here ({_percent(p)} sure): run bridge or random."
    if told["verdict"] == "no assistant":
        named = TITLES[leader].partition(", ")[2]
        free = ", at no cost" if leader in NOTHING_PAID else ""
        return (
            f"An assistant does not pay off here ({_percent(1 - p)} sure): the likeliest to be the "
            f"best is the student, {named} ({_percent(told['best'][leader])}){free}; method: "
            f"{METHODS[leader]}."
        )
    return " ".join(filter(None, (_undecided(told), what_would(told))))


def _undecided(told: Mapping[str, Any]) -> str:
    """How the pilot that cannot tell leans, whom it rules out, and what is free."""
    best, leader = told["best"], told["leader"]
    out = [TITLES[arm] for arm, share in best.items() if share < 1 - told["sure"]]
    left = [arm for arm in best if best[arm] >= 1 - told["sure"]]
    text = (
        f"The pilot cannot tell ({_percent(best['tutored'])} for an assistant); the likeliest to "
        f"be the best is {TITLES[leader].lower()} ({_percent(best[leader])})"
    )
    if out:
        text += f", and ruled out: {', '.join(out).lower()}"
    free = [TITLES[arm] for arm in left if arm in NOTHING_PAID]
    return text + (f". No query: {' and '.join(free).lower()}." if free else ".")


def what_would(told: Mapping[str, Any]) -> str:
    """What would tell more, where the pilot cannot."""
    mean, share = told["p_if_runs_were_alike"], told["share"]
    if max(mean, 1 - mean) >= told["sure"]:
        kind = "better" if mean >= told["sure"] else "worse"
        return (
            f"In the mean of many runs an assistant is {kind} ({_percent(max(mean, 1 - mean))} "
            "sure), but single runs differ by as much as the arms do: compare them over several "
            "seeds."
        )
    if share < 0.5:
        return (
            f"A larger pilot tells more, and what was bought is not paid for again: --set "
            f"advise.share={2 * share:g}."
        )
    return "A larger pilot would cost as much as the arms: compare random, direct and answers_only."


def _percent(p: float) -> str:
    if p > 0.99:
        return "over 99%"
    return f"{p:.0%}" if p >= 0.01 else "under 1%"
