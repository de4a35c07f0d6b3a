"""The command line: parse, call, print.

Exit codes: 0 done; 2 bad input; 3 stopped, the same command resumes; 130 interrupted, or 143 by
SIGTERM.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from bridgekd import __version__, api
from bridgekd.cli import (
    export,
    ledger,
    list_variants,
    render_metrics,
    render_pilot,
    render_plan,
    status,
)
from bridgekd.cli.documents import build_plan_document, print_document
from bridgekd.cli.entry_point import INTERRUPTED
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import JsonFlag, err, make_printer, out
from bridgekd.comparison import MethodName
from bridgekd.errors import BridgekdError, InputError
from bridgekd.io.load_recipe import parse_methods
from bridgekd.methods import METHODS
from bridgekd.stages.pilot import RESULTS

ARMS_HELP = f"Methods, separated by commas: {', '.join(METHODS.list_names())}; or your .py file."
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distill the reasoning of a large teacher into a small model, within a budget.",
)
sandbox_app = typer.Typer(no_args_is_help=True, help="A small offline world with a teacher.")
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(ledger.app, name="ledger")
_ERROR_TITLES = {1: "Error", 2: "Bad input", 3: "Stopped"}

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set budget.queries=5%"),
]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm the purchase without a prompt.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds, starting at the recipe's seed.")]
Budgets = Annotated[
    str,
    typer.Option(
        help="Budgets in queries, separated by commas: 200, or 5% or 0.05 of the pool. Default: "
        "the recipe's."
    ),
]


def _print_version(is_set: bool) -> None:
    if is_set:
        out.print(f"bridgekd {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command("run", epilog="Example: bridgekd run medqa.yaml --set seed=1")
def run_command(recipe: RecipePath, set_: Overrides = None, yes: Yes = False) -> None:
    """Run a recipe, or resume it."""
    _run_methods(recipe, set_ or [], yes)


@app.command(
    "compare",
    epilog="Example: bridgekd compare medqa.yaml --arms bridge,direct --seeds 5 --budgets 1%,5%",
)
def compare_command(
    recipe: RecipePath,
    arms: Annotated[str, typer.Option(help=ARMS_HELP)] = "bridge,direct",
    seeds: Seeds = 1,
    budgets: Budgets = "",
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes, with one thread each.")
    ] = 1,
    set_: Overrides = None,
    yes: Yes = False,
) -> None:
    """Run several methods with one store and one ledger, and evaluate them together."""
    methods, amounts = parse_methods(arms), _split_list(budgets)
    _run_methods(recipe, set_ or [], yes, methods, seeds, amounts, workers)


@app.command("plan", epilog="Example: bridgekd plan medqa.yaml --set budget.usd=2")
def plan_command(
    recipe: RecipePath,
    arms: Annotated[str, typer.Option(help=f"{ARMS_HELP} Default: the recipe's method.")] = "",
    seeds: Seeds = 1,
    budgets: Budgets = "",
    pilot: Annotated[
        bool,
        typer.Option(
            "--pilot", help="Run a paid pilot: is an assistant worth its cost on this task?"
        ),
    ] = False,
    time: Annotated[
        bool, typer.Option("--time", help="Load the models and measure their speed first.")
    ] = False,
    set_: Overrides = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a run would do and what it would cost.

    It sends and writes nothing, with two exceptions: --pilot runs a paid pilot after a
    confirmation, and --time saves the measured speeds in the store.
    """
    notes = err if as_json else out
    if pilot:
        if arms or budgets or seeds > 1:
            raise InputError(
                "--pilot has its own arms and uses the recipe's budget. Leave out --arms, --seeds "
                "and --budgets (instead: --set budget.queries=5%, --set pilot.n_seeds=3)."
            )
        result = _run_pilot(recipe, set_ or [], yes, notes)
        if as_json:
            print_document(result.measurements)
        else:
            render_pilot.print_pilot_result(out, result.measurements)
        notes.print(f"All results: {result.folder / RESULTS}", soft_wrap=True)
        return
    with show_progress(notes) as progress:
        plan = api.plan(
            recipe,
            overrides=set_ or [],
            methods=parse_methods(arms),
            seeds=seeds,
            budgets=_split_list(budgets),
            measure_time=time,
            progress=progress,
        )
    if as_json:
        print_document(build_plan_document(plan))
    else:
        render_plan.print_plan(out, plan)


app.command("status", epilog="Example: bridgekd status medqa --store runs")(status.status_command)
app.command("report", epilog="Example: bridgekd report medqa")(status.report_command)
app.command("list", epilog="Example: bridgekd list methods")(list_variants.list_command)
app.command("export", epilog="Example: bridgekd export medqa --to medqa-student")(
    export.export_model_command
)
app.command("ask", epilog='Example: bridgekd ask medqa "What is 2 + 2?"')(export.ask_command)


@app.command("init", epilog="Example: bridgekd init my-task.yaml")
def write_template(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
) -> None:
    """Write a recipe template with comments."""
    if path.exists():
        raise InputError(f"{path} exists already. Name another file.")
    try:
        path.write_text(Path(__file__).with_name("recipe_template.yaml").read_text())
    except OSError as exc:
        raise InputError(f"Cannot write {path}: {exc.strerror}. Create its folder first.") from exc
    out.print(f"Wrote {path}. Next: bridgekd plan {path}")


@app.command("demo", epilog="Example: bridgekd demo --folder demo")
def run_demo(
    folder: Annotated[
        Path | None, typer.Option(help="Working directory: demo, or demo-quick with --quick.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="100 questions, half a minute. It only tests the setup."),
    ] = False,
) -> None:
    """Compare BRIDGE and direct distillation at a 5 % budget, offline, in a few minutes."""
    from bridgekd.sandbox.export import QUICK, export_world
    from bridgekd.sandbox.teacher_server import run_teacher_server

    name, sizes = ("demo-quick", QUICK) if quick else ("demo", {})
    recipe = export_world(folder or Path(name), **sizes)
    with run_teacher_server() as teacher:
        overrides = [f"teacher.base_url={teacher.base_url}"]
        _run_methods(recipe, overrides, yes=True, methods=["bridge", "direct"])


@sandbox_app.command("export", epilog="Example: bridgekd sandbox export world")
def export_sandbox(folder: Annotated[Path, typer.Argument(help="The folder to write.")]) -> None:
    """Write the sandbox as files of a user: data, instructions, models and a recipe."""
    from bridgekd.sandbox.export import export_world

    recipe = export_world(folder)
    out.print(f"Wrote {folder}. Next: bridgekd sandbox serve, then bridgekd run {recipe}")


@sandbox_app.command("serve", epilog="Example: bridgekd sandbox serve --port 8765")
def serve_sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port on the loopback interface.")
    ] = 8765,
    seed: Annotated[int, typer.Option(help="Another seed gives other answers.")] = 0,
) -> None:
    """Start the teacher of the sandbox, an OpenAI-compatible server on this machine only."""
    import threading

    from bridgekd.sandbox.teacher_server import run_teacher_server

    try:
        with run_teacher_server(seed=seed, port=port) as teacher:
            out.print(f"Teacher at {teacher.base_url}. Press Ctrl-C to stop it.")
            threading.Event().wait()
    except OSError as exc:
        raise InputError(f"Cannot use port {port}: {exc.strerror}. Set another --port.") from exc


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An error is printed as a message on stderr."""
    try:
        code = app(arguments, standalone_mode=False)
    except BridgekdError as exc:
        err.print(f"{_ERROR_TITLES[exc.exit_code]}: ", style="bold red", end="")
        make_printer(err)(str(exc))
        return exc.exit_code
    except TyperException as exc:  # a mistake in the command itself
        err.print(f"{_ERROR_TITLES[2]}: ", style="bold red", end="")
        make_printer(err)(f"{exc.format_message()} (see --help)")
        return 2
    except typer.Abort:  # Ctrl-C or Ctrl-D at a prompt
        code = 130
    if code == 130:
        err.print(INTERRUPTED)
    return code if isinstance(code, int) else 0


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _ask_confirmation() -> bool:
    return sys.stdin.isatty() and typer.confirm("Continue?", default=False, err=True)


def _run_pilot(
    recipe: Path, overrides: Sequence[str], yes: bool, notes: Console
) -> api.PilotResult:
    with show_progress(notes) as progress:
        return api.run_pilot(
            recipe,
            overrides=overrides,
            show=lambda plan: render_pilot.print_pilot_plan(notes, plan),
            consent=lambda plan: yes or _ask_confirmation(),
            progress=progress,
            note=make_printer(notes),
        )


def _run_methods(
    recipe: Path,
    overrides: Sequence[str],
    yes: bool,
    methods: Sequence[MethodName] = (),
    seeds: int = 1,
    budgets: Sequence[str] = (),
    workers: int = 1,
) -> None:
    from bridgekd.sandbox.step_checker import count_wrong_steps

    def consent(plan: api.Plan) -> bool:
        if not yes:
            render_plan.print_purchases(out, plan)
        return yes or _ask_confirmation()

    with show_progress(out) as progress:
        result = api.run(
            recipe,
            overrides=overrides,
            methods=methods,
            seeds=seeds,
            budgets=budgets,
            workers=workers,
            consent=consent,
            checkers={"sandbox": count_wrong_steps},
            progress=progress,
            note=make_printer(out),
        )
    render_metrics.print_metrics(out, result.metrics, result.name)
    out.print(f"Report: {result.report}", soft_wrap=True)
