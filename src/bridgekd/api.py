"""The functions of the package: `run`, `plan` and `run_pilot` take a recipe; `export` and
`load_models` take the name of a finished run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bridgekd import lm
from bridgekd.api_client.environment import check_environment
from bridgekd.api_client.openai_client import read_key_variable
from bridgekd.comparison import MethodName, parse_comparison, report_comparison, run_comparison
from bridgekd.errors import InputError
from bridgekd.exports import ExportResult, export_arm
from bridgekd.inference_server.process import fill_placeholders, find_program
from bridgekd.io.load_recipe import Registries, add_recipe_line, load_recipe
from bridgekd.io.metrics_file import read_metrics
from bridgekd.methods import METHODS, pilot
from bridgekd.parallel import run_parallel
from bridgekd.paths import resolve_path
from bridgekd.plans.plan import Plan, plan_comparison, plan_run
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import Recipe
from bridgekd.runs.ask import LoadedModels, open_models
from bridgekd.runs.metadata import load_finished_run, parse_recipe
from bridgekd.runs.run import Run, RunMetadata, build_run_context, open_run
from bridgekd.stages.evaluate import get_step_checker
from bridgekd.stages.pilot import PilotMeasurements, read_measurements
from bridgekd.stages.run_context import StepChecker
from bridgekd.stats.metrics import Metrics
from bridgekd.teacher.buy_answers import read_api_key
from bridgekd.teacher.transports import TRANSPORTS, prepare_teacher, resolve_teacher
from bridgekd.variants import VariantRef

__all__ = [
    "Consent", "ExportResult", "LoadedModels", "PilotResult", "Plan", "RunResult", "export",
    "load_models", "plan", "plan_remaining", "run", "run_pilot",
]  # fmt: skip

Consent = Callable[[Plan], bool]
NO_STEP_CHECKERS: Mapping[str, StepChecker] = {}


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its metrics, the path of its report, and the plan that it followed."""

    name: str
    metrics: Metrics
    report: Path
    plan: Plan


@dataclass(frozen=True, slots=True)
class PilotResult:
    """A finished pilot: its measurements, and the folder that holds them as pilot.json."""

    name: str
    measurements: PilotMeasurements
    folder: Path
    plan: Plan


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
    """Run a recipe up to its report, or resume it.

    methods, seeds, budgets: run a comparison of these methods, with this number of seeds (starting
    at the recipe's seed) and with these budgets in queries (0.05 or `5%` of the pool, or a number).
    workers: the number of processes. folder: what the paths of a Recipe object are relative to
    (default: the current folder); those of a file are relative to the file. consent: called before
    anything is sent to a teacher or an assistant's server on another machine; the default declines.
    checkers: the functions that `evaluate.step_checker` can name.

    Raises InputError. Raises StoppedError if the run stopped and its state is saved.

    >>> import bridgekd
    >>> result = bridgekd.run("task.yaml", methods=["bridge", "direct"], consent=lambda plan: True)
    >>> result.metrics.arms["bridge"].n_test, result.report.name
    (20, 'report.html')
    """
    resolved, home = _resolve_recipe(recipe, overrides, folder)
    comparison = parse_comparison(resolved, home, methods, seeds, budgets)
    if resolved.evaluate.step_checker is not None:
        get_step_checker(checkers, resolved.evaluate.step_checker)
    with add_recipe_line(recipe, overrides):
        plan = plan_comparison(resolved, home, comparison, _get_store(resolved, home))
    if plan.ledger_warning:
        note(plan.ledger_warning)
    _confirm_purchase(resolved, home, plan, consent)
    ctx = build_run_context(resolved, home)
    ctx = replace(ctx, progress=progress, notify=note, checkers=checkers)
    n_seeds, labels = len(comparison.seeds), comparison.budget_labels
    current = open_run(resolved, home, ctx, comparison.methods, n_seeds, labels)
    with _track_run(current):
        if workers > 1:
            run_parallel(current, comparison, workers)
        evaluation = run_comparison(current, comparison)
        page = report_comparison(current, comparison, evaluation)
    return RunResult(resolved.name, read_metrics(evaluation.path), page.path / "report.html", plan)


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
    """Return what `run` would do with the same arguments. This sends and writes nothing.

    measure_time: load the local models whose speed is not known, measure it, and save it in the
    store. Raises InputError.

    >>> import bridgekd
    >>> plan = bridgekd.plan("task.yaml", overrides=["budget.queries=5"], methods=["direct"])
    >>> plan.n_pool, plan.train_cost.n_queries
    (60, 5)
    >>> plan.train_cost.unpaid.maximum  # micro-dollars: the ledger already has these answers
    0
    """
    resolved, home = _resolve_recipe(recipe, overrides, folder)
    comparison = parse_comparison(resolved, home, methods, seeds, budgets)
    store = _get_store(resolved, home)
    with add_recipe_line(recipe, overrides):
        return plan_comparison(
            resolved, home, comparison, store, progress if measure_time else None
        )


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
    """Run the pilot of a recipe, or resume it.

    It spends `pilot.budget_fraction` of the budget, trains the models of the pilot, and measures
    them on held-out questions of the pool. Its run has the recipe's name plus `-pilot`. `show` is
    called with the plan, and then `consent` as in `run`. Raises InputError or StoppedError.

    >>> import bridgekd
    >>> pilot = bridgekd.run_pilot("large.yaml", consent=lambda plan: True)  # doctest: +SKIP
    >>> print(pilot.folder / "pilot.json")  # doctest: +SKIP
    """
    resolved, home = _resolve_recipe(recipe, overrides, folder)
    resolved = resolved.model_copy(update={"name": f"{resolved.name[:73]}-{pilot.NAME}"})
    with add_recipe_line(recipe, overrides):
        plan = plan_run(resolved, home, _get_store(resolved, home), pilot.pilot)
    show(plan)
    if plan.ledger_warning:
        note(plan.ledger_warning)
    _confirm_purchase(resolved, home, plan, consent)
    ctx = replace(build_run_context(resolved, home), progress=progress, notify=note)
    current = open_run(resolved, home, ctx, [VariantRef(name=pilot.NAME)])
    with _track_run(current):
        artifact = pilot.pilot(current)
    return PilotResult(resolved.name, read_measurements(artifact), artifact.path, plan)


def plan_remaining(metadata: RunMetadata, store: Path) -> Plan:
    """Return what is left to do in a run of `store`. It may be running.

    Raises InputError if the run cannot be planned any more, for example because a file is missing.
    """
    recipe, folder = parse_recipe(metadata), Path(metadata.folder)
    if metadata.methods == (VariantRef(name=pilot.NAME),):
        return plan_run(recipe, folder, store, pilot.pilot)
    n_seeds, budgets = metadata.n_seeds, metadata.budgets
    comparison = parse_comparison(recipe, folder, metadata.methods, n_seeds, budgets)
    return plan_comparison(recipe, folder, comparison, store)


def export(
    run: str,
    to: str | Path,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = ignore_progress,
) -> ExportResult:
    """Write a model of a finished run to the folder `to`, which must be new or empty.

    The folder has merged weights for transformers, the training rows, and a card for each. `arm`
    must be a model that was trained on rationales; the default is the student of the run's method.
    Raises InputError.

    >>> import bridgekd
    >>> bridgekd.export("task", "my-student").arm
    'bridge'
    """
    return export_arm(load_finished_run(Path(store), run), Path(to), arm, progress)


def load_models(
    run: str,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = ignore_progress,
) -> LoadedModels:
    """Return the student of a finished run, its assistant and its base model, loaded.

    `arm` is as in `export`. Raises InputError.

    >>> import bridgekd
    >>> models = bridgekd.load_models("task")
    >>> [answer.model for answer in models.ask("Where is Bob in the end?")]
    ['Student, BRIDGE', 'Assistant, trained', 'Student, base model']
    """
    finished = load_finished_run(Path(store), run)
    return open_models(finished, arm, build_run_context(finished.recipe, finished.folder), progress)


def _confirm_purchase(recipe: Recipe, folder: Path, plan: Plan, consent: Consent) -> None:
    """Raise InputError if a key, a program or the device is missing, if the environment has a
    proxy or a certificate that no client can use, or if the user does not confirm.
    """
    if plan.purchases:
        if recipe.device != "auto":  # the first model may be trained after the purchase
            lm.resolve_device(recipe.device)
        read_api_key(recipe.teacher)
        if resolve_teacher(recipe.teacher).transport.needs_api_key:
            check_environment(recipe.teacher.effective_base_url)
    server = recipe.assistant.server
    if plan.uses_server and server is not None:
        read_key_variable(server.api_key_env, "assistant.server")
        if server.base_url is not None:
            check_environment(server.base_url)
        if server.command is not None:
            find_program(fill_placeholders(server.command, {}), folder)
    is_paid = plan.needs_consent and plan.purchases
    if (is_paid or plan.server_host) and not consent(plan):
        raise InputError(
            "Purchase not confirmed. Nothing was sent or spent. Pass --yes (Python: consent=...)."
        )


@contextmanager
def _track_run(run: Run) -> Iterator[None]:
    """Record in the run's file how the work inside ends."""
    try:
        yield
    except BaseException as exc:
        with suppress(InputError):  # the reason for the stop is more important
            run.write_metadata("interrupted" if isinstance(exc, KeyboardInterrupt) else "stopped")
        raise
    run.write_metadata("done")


def _get_store(recipe: Recipe, folder: Path) -> Path:
    return resolve_path(folder, recipe.store)


def _resolve_recipe(
    recipe: str | Path | Recipe, overrides: Sequence[str], folder: Path | None
) -> tuple[Recipe, Path]:
    if isinstance(recipe, Recipe):
        resolved, home = recipe, folder or Path.cwd()
    else:
        registries: Registries = {"method": METHODS, "teacher.transport": TRANSPORTS}
        resolved = load_recipe(Path(recipe), overrides, registries)
        home = Path(recipe).resolve().parent
    teacher = prepare_teacher(resolved.teacher, home)
    resolved = resolved.model_copy(update={"teacher": teacher})
    if resolved.budget.usd is not None or resolved.hard_limit_usd is not None:
        resolve_teacher(teacher).check_price()
    return resolved, home
