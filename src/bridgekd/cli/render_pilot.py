"""What `plan --pilot` prints: the plan of the pilot, the accuracies that it measured, and what they
do not show.
"""

from collections import Counter

from rich.console import Console
from rich.table import Table

from bridgekd.cli.render_plan import print_purchases
from bridgekd.plans.plan import Plan
from bridgekd.stages.pilot import PilotGain, PilotMeasurements, PilotRole

TITLES: dict[PilotRole, str] = {
    "base": "Student, base model",
    "instructed": "Student before distillation",
    "answers_only": "Student, gold answers only",
    "direct": "Student, direct",
    "assistant": "Assistant",
    "via_assistant": "Student, via the assistant",
}


def print_pilot_plan(console: Console, plan: Plan) -> None:
    """What the pilot still has to do, and what it may cost."""
    pending = Counter(a.stage for a in plan.stages if not a.done)
    if not pending:
        console.print("The pilot is finished.")
        return
    n_trainings = sum(
        n for stage, n in pending.items() if stage.startswith(("train_", "warm_", "instruct_"))
    )
    console.print(
        f"The pilot runs {n_trainings} trainings, generates rationales for the pool "
        f"{pending['annotate']} times and evaluates {pending['predict']} models, on this machine."
    )
    print_purchases(console, plan)
    console.print(
        "[dim]direct and random ask the same questions first. They reuse these answers.[/dim]"
    )


def print_pilot_result(console: Console, measured: PilotMeasurements) -> None:
    """The accuracy of every model, the difference that the assistant made, and their limits."""
    table = Table(title=_format_title(measured), title_justify="left", box=None, pad_edge=False)
    for column in ("model", "teacher's rationales", "accuracy", "95 % interval"):
        table.add_column(column, no_wrap=True, justify="left" if column == "model" else "right")
    for model in measured.models:
        low, high = model.ci95
        n = f"{model.n_rationales:,}" if model.n_rationales else ""
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(TITLES[model.role], n, f"{model.accuracy:.1%}", interval)
    console.print(table)
    console.print(
        f"[dim]Measured on {measured.n_eval:,} questions of the pool that no model has seen.[/dim]"
    )
    for gain in measured.gains:
        console.print(format_gain(gain), markup=False, soft_wrap=True)
    console.print(format_limits(measured), markup=False, soft_wrap=True)


def format_gain(gain: PilotGain) -> str:
    """The difference that the assistant made with one number of rationales, and what it shows."""
    low, high = (100 * end for end in gain.ci95)
    shows = "The pilot does not show which one is better"
    if low > 0:
        shows = "The student via the assistant is better"
    elif high < 0:
        shows = "The student taught directly is better"
    return (
        f"Via the assistant minus direct, {gain.n_rationales:,} rationales: "
        f"{100 * gain.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, "
        f"p = {gain.p:.2g}). {shows} with this number of rationales."
    )


def format_limits(measured: PilotMeasurements) -> str:
    """What the pilot cannot answer, and the command that can."""
    one_seed = measured.gains[-1].n_seeds == 1
    seeds = (
        "Each model was trained once; another seed may change the order (pilot.n_seeds). "
        if one_seed
        else ""
    )
    return (
        "The pilot does not tell what happens at the full budget: either student may gain more "
        f"from more answers than {measured.n_queries:,}. {seeds}The questions were selected at "
        "random; another strategy may give other results. To measure the full budget: bridgekd "
        "compare RECIPE --arms random,direct,answers_only --seeds 3"
    )


def _format_title(measured: PilotMeasurements) -> str:
    return (
        f"Pilot: {measured.n_queries:,} answers of the teacher, {measured.n_rationales:,} "
        f"rationales kept, a pool of {measured.n_pool:,}"
    )
