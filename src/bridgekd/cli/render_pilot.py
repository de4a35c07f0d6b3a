"""The text of `plan --pilot`: its plan, the accuracies that it measured, and their limits."""

from collections import Counter

from rich.console import Console

from bridgekd.cli.render_plan import print_purchases
from bridgekd.cli.terminal import make_table
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
    """Print the work that is left in the pilot, and its cost."""
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
        "direct and bridge_random start with the same questions and reuse these answers.",
        style="dim",
    )


def print_pilot_result(console: Console, measured: PilotMeasurements) -> None:
    """Print the accuracy of every model, the gains from the assistant, and the limits of both."""
    numbers = ("teacher's rationales", "accuracy", "95 % interval")
    title = (
        f"Pilot: {measured.n_queries:,} answers of the teacher, {measured.n_rationales:,} "
        f"rationales kept, a pool of {measured.n_pool:,}"
    )
    table = make_table(title, ("model", *numbers), right=numbers)
    for model in measured.models:
        low, high = model.ci95
        n = f"{model.n_rationales:,}" if model.n_rationales else ""
        interval = f"{low:.1%} to {high:.1%}"
        table.add_row(TITLES[model.role], n, f"{model.accuracy:.1%}", interval)
    console.print(table)
    console.print(
        f"Measured on {measured.n_eval:,} questions of the pool that no model has seen.",
        style="dim",
    )
    for gain in measured.gains:
        console.print(format_gain(gain), soft_wrap=True)
    console.print(format_limits(measured), soft_wrap=True)


def format_gain(gain: PilotGain) -> str:
    """Return the gain from the assistant with one number of rationales, and what it shows."""
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
    """Return what the pilot does not show, and the command that measures it."""
    seeds = ""
    if measured.gains[-1].n_seeds == 1:
        seeds = "Each model was trained once; another seed may change the order (pilot.n_seeds). "
    return (
        "The pilot does not show the result at the full budget: either student may gain more "
        f"from more answers than {measured.n_queries:,}. {seeds}The questions were selected at "
        "random; another strategy may have other results. To measure the full budget: bridgekd "
        "compare RECIPE --arms bridge_random,direct,answers_only --seeds 3"
    )
