"""From Python: `run(recipe)` does all of a recipe, `plan(recipe)` says beforehand what it means;
`export(name)` and `panel(name)` take up a run that is done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bridgekd.api_client.openai_client import read_key_variable
from bridgekd.comparison import (
    MethodName,
    parse_comparison,
    report_comparison,
    run_comparison,
)
from bridgekd.errors import InputError
from bridgekd.exports import ExportResult, export_arm
from bridgekd.inference_server.process import fill_placeholders, find_program
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.metrics_file import read_metrics
from bridgekd.methods import pilot
from bridgekd.parallel import run_parallel
from bridgekd.plans.plan import Plan, plan_comparison, plan_run
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import Recipe
from bridgekd.runs.ask import LoadedModels
from bridgekd.runs.ask import open_models as open_panel
from bridgekd.runs.metadata import load_finished_run, parse_recipe
from bridgekd.runs.run import Run, RunMetadata, build_run_context, open_run
from bridgekd.stages.evaluate import get_step_checker
from bridgekd.stages.pilot import PilotMeasurements, read_measurements
from bridgekd.stages.run_context import StepChecker
from bridgekd.stats.metrics import Metrics
from bridgekd.teacher.buy_answers import read_api_key
from bridgekd.teacher.transports import prepare_teacher, resolve_teacher
from bridgekd.variants import VariantRef

__all__ = [
    "Consent",
    "ExportResult",
    "LoadedModels",
    "PilotResult",
    "Plan",
    "RunResult",
    "export",
    "load_models",
]
__all__ += ["plan", "plan_remaining", "run", "run_pilot"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: every figure, and where the page is."""

    name: str
    metrics: Metrics
    report: Path
    plan: Plan


@dataclass(frozen=True, slots=True)
class PilotResult:
    """A finished pilot: what it measured, and the folder that holds this as pilot.json."""

    name: str
    measurements: PilotMeasurements
    folder: Path
    plan: Plan


Consent = Callable[[Plan], bool]
NO_STEP_CHECKERS: Mapping[str, StepChecker] = {}


def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    methods: Sequence[MethodName] = (),
    seeds: int = 1,
    budgets: Sequence[int | float | str] = (),
    workers: int = 1,
    folder: Path | None = None,
    consent: Consent = lambda plan: False,
    checkers: Mapping[str, StepChecker] = NO_STEP_CHECKERS,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Runs a recipe to its report, or goes on where it stopped; `methods`, under so many `seeds`
    (from the recipe's on) and under `budgets` in queries (0.05 or `5%` of the pool, or a number),
    are compared over one store, by as many processes as `workers` says.

    Relative paths are relative to the recipe's folder, or to `folder` (default: here) for a Recipe
    object. `consent` is asked before anything is sent to a teacher, or to an assistant's server,
    that is not on this machine; the default says no. `checkers` holds what `evaluate.step_checker`
    names. Raises InputError, or StoppedError with all state saved.
    """
    given, home = _resolve_recipe(recipe, overrides, folder)
    wanted = parse_comparison(given, home, methods, seeds, budgets)
    if given.evaluate.step_checker is not None:
        get_step_checker(checkers, given.evaluate.step_checker)
    store = home / Path(given.store).expanduser()
    plan = plan_comparison(given, home, wanted, store)
    _confirm_purchase(given, home, plan, consent)
    ctx = build_run_context(given, home)
    ctx = replace(ctx, progress=progress, notify=note, checkers=checkers)
    n_seeds = len(wanted.seeds)
    here = open_run(given, home, ctx, wanted.methods, n_seeds, wanted.budget_labels)
    with _track_run(here):
        if workers > 1:
            run_parallel(here, wanted, workers)
        evaluation = run_comparison(here, wanted)
        page = report_comparison(here, wanted, evaluation)
    return RunResult(given.name, read_metrics(evaluation.path), page.path / "report.html", plan)


def plan(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    methods: Sequence[MethodName] = (),
    seeds: int = 1,
    budgets: Sequence[int | float | str] = (),
    folder: Path | None = None,
    measure_time: bool = False,
    progress: Progress = ignore_progress,
) -> Plan:
    """What `run` would do with the same arguments. Reads the data and the ledger; sends and writes
    nothing. With `measure_time` the local models that the plan has no measured speed for are loaded
    and measured, and the speeds are saved in the store.
    """
    given, home = _resolve_recipe(recipe, overrides, folder)
    store = home / Path(given.store).expanduser()
    wanted = parse_comparison(given, home, methods, seeds, budgets)
    return plan_comparison(given, home, wanted, store, progress if measure_time else None)


def run_pilot(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    consent: Consent = lambda plan: False,
    show: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = ignore_progress,
    note: Callable[[str], None] = lambda text: None,
) -> PilotResult:
    """Runs the recipe's pilot, or resumes it: spends `pilot.budget_fraction` of the budget, trains
    the pilot's models, and returns what they reach on held-out pool questions.

    `show` gets the pilot's plan first; then `consent` is asked as by `run`. The pilot's run has the
    recipe's name with `-pilot` appended. Raises InputError, or StoppedError with all state saved.
    """
    given, home = _resolve_recipe(recipe, overrides, folder)
    given = given.model_copy(update={"name": f"{given.name[:73]}-{pilot.NAME}"})
    store = home / Path(given.store).expanduser()
    plan = plan_run(given, home, store, pilot.pilot)
    show(plan)
    _confirm_purchase(given, home, plan, consent)
    ctx = replace(build_run_context(given, home), progress=progress, notify=note)
    here = open_run(given, home, ctx, [VariantRef(name=pilot.NAME)])
    with _track_run(here):
        made = pilot.pilot(here)
    return PilotResult(given.name, read_measurements(made), made.path, plan)


def plan_remaining(metadata: RunMetadata, store: Path) -> Plan:
    """What a run that is not over has still to do, by its file in `store`: `plan` of the same
    recipe as things stand now. Also while the run goes on.

    Raises InputError where it cannot be planned any more.
    """
    recipe, folder = parse_recipe(metadata), Path(metadata.folder)
    if metadata.methods == (VariantRef(name=pilot.NAME),):
        return plan_run(recipe, folder, store, pilot.pilot)
    wanted = parse_comparison(recipe, folder, metadata.methods, metadata.n_seeds, metadata.budgets)
    return plan_comparison(recipe, folder, wanted, store)


def export(
    run: str,
    to: str | Path,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = ignore_progress,
) -> ExportResult:
    """Writes a model of the finished run named `run` into the folder `to`, which must be new or
    empty: merged weights that plain transformers loads, the rows it learnt from, a card for each.

    `arm` is one that learnt from rationales; by default the student of the run's own method.
    Raises InputError.
    """
    return export_arm(load_finished_run(Path(store), run), Path(to), arm, progress)


def load_models(
    run: str,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = ignore_progress,
) -> LoadedModels:
    """A finished run's student, its assistant and its untouched base, ready to be asked:
    `panel("medqa").ask("What is 2 + 2?")`. Raises InputError.
    """
    done = load_finished_run(Path(store), run)
    return open_panel(done, arm, build_run_context(done.recipe, done.folder), progress)


def _confirm_purchase(recipe: Recipe, folder: Path, plan: Plan, consent: Consent) -> None:
    """Refuses what cannot be done as planned, and what was not agreed to."""
    if plan.purchases:
        read_api_key(recipe.teacher)
    if plan.uses_server:
        _check_server(recipe, folder)
    to_agree = plan.needs_consent and plan.purchases
    if (to_agree or plan.server_host) and not consent(plan):
        raise InputError(
            "nothing was sent and nothing was spent: the buying was not agreed to; "
            "agree with --yes (from Python: consent=...)"
        )


@contextmanager
def _track_run(run: Run) -> Iterator[None]:
    """Writes down how what is done inside ended."""
    try:
        yield
    except BaseException as exc:
        with suppress(InputError):  # what stopped the run matters more
            run.write_metadata("interrupted" if isinstance(exc, KeyboardInterrupt) else "stopped")
        raise
    run.write_metadata("done")


def _check_server(recipe: Recipe, folder: Path) -> None:
    """Refuses a key or a program that is not there now, before anything is paid for."""
    server = recipe.assistant.server
    if server is not None:
        read_key_variable(server.api_key_env, "assistant.server")
        if server.command is not None:
            find_program(fill_placeholders(server.command, {}), folder)


def _resolve_recipe(
    recipe: str | Path | Recipe, overrides: Sequence[str], folder: Path | None
) -> tuple[Recipe, Path]:
    if isinstance(recipe, Recipe):
        wanted, home = recipe, folder or Path.cwd()
    else:
        wanted, home = load_recipe(Path(recipe), overrides), Path(recipe).resolve().parent
    wanted = wanted.model_copy(update={"teacher": prepare_teacher(wanted.teacher, home)})
    if wanted.budget.usd is not None or wanted.hard_limit_usd is not None:
        resolve_teacher(wanted.teacher).check_price()
    return wanted, home
