"""From Python: `run(recipe)` does all of a recipe, `plan(recipe)` says beforehand what it means;
`export(name)` and `panel(name)` take up a run that is done.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bridgekd.config import Recipe
from bridgekd.edges.recipe import load_recipe
from bridgekd.errors import BadInput
from bridgekd.exporting import Exported, export_arm
from bridgekd.journal import finished, recipe_of
from bridgekd.methods import method_named
from bridgekd.planning import Plan, planned
from bridgekd.progress import Progress, silent
from bridgekd.runs import live_of, open_run
from bridgekd.served.process import filled, program_of
from bridgekd.teacher.buy import api_key, key_in
from bridgekd.teacher.replay import placed
from bridgekd.trying import Panel
from bridgekd.trying import panel as open_panel

__all__ = ["Consent", "Exported", "Outcome", "Panel", "Plan", "export", "panel", "plan", "run"]
__all__ += ["standing"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: every figure, and where the page is."""

    name: str
    metrics: dict[str, Any]
    report: Path
    plan: Plan


Consent = Callable[[Plan], bool]


def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    methods: Sequence[str] = (),
    folder: Path | None = None,
    consent: Consent = lambda plan: False,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Runs a recipe to its report, or goes on where it stopped; `methods` compares several over one
    store.

    Relative paths are relative to the recipe's folder, or to `folder` (default: here) for a Recipe
    object. `consent` is asked before anything is sent to a teacher, or to an assistant's server,
    that is not on this machine; the default says no. Raises BadInput, or Stopped with all state
    saved.
    """
    wanted, home = _resolve(recipe, overrides, folder)
    names = list(methods) or [wanted.method]
    foreseen = plan(wanted, methods=names, folder=home)
    if foreseen.purchases:
        api_key(wanted.teacher)
    if foreseen.serves:
        _can_serve(wanted, home)
    to_agree = foreseen.needs_consent and foreseen.purchases
    if (to_agree or foreseen.served_at) and not consent(foreseen):
        raise BadInput(
            "nothing was sent and nothing was spent: the buying was not agreed to; "
            "agree with --yes (from Python: consent=...)"
        )
    live = replace(live_of(wanted, home), progress=progress, note=note)
    here = open_run(wanted, home, live, names)
    try:
        arms = {name: arm for m in names for name, arm in method_named(m)(here).items()}
        evaluation = here.measure(arms)
        page = here.report(evaluation)
    except BaseException as exc:
        with suppress(BadInput):  # what stopped the run matters more
            here.write_journal("interrupted" if isinstance(exc, KeyboardInterrupt) else "stopped")
        raise
    here.write_journal("done")
    metrics = json.loads((evaluation.path / "metrics.json").read_text())
    return Outcome(wanted.name, metrics, page.path / "report.html", foreseen)


def plan(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    methods: Sequence[str] = (),
    folder: Path | None = None,
) -> Plan:
    """What `run` would do with the same arguments. Reads the data and the ledger; sends and writes
    nothing.
    """
    wanted, home = _resolve(recipe, overrides, folder)
    store = home / Path(wanted.store).expanduser()
    return planned(wanted, home, methods or [wanted.method], store)


def standing(journal: Mapping[str, Any], store: Path) -> Plan:
    """What a run that is not over has still to do, by its journal in `store`: `plan` of the same
    recipe as things stand now. Also while the run goes on.

    Raises BadInput where it cannot be planned any more, or was begun by an older bridgekd.
    """
    return planned(recipe_of(journal), Path(journal["folder"]), journal["methods"], store)


def export(
    run: str,
    to: str | Path,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = silent,
) -> Exported:
    """Writes a model of the finished run named `run` into the folder `to`, which must be new or
    empty: merged weights that plain transformers loads, the rows it learnt from, a card for each.

    `arm` is one that learnt from rationales; by default the student of the run's own method.
    Raises BadInput.
    """
    return export_arm(finished(Path(store), run), Path(to), arm, progress)


def panel(
    run: str,
    *,
    arm: str | None = None,
    store: str | Path = "runs",
    progress: Progress = silent,
) -> Panel:
    """A finished run's student, its assistant and its untouched base, ready to be asked:
    `panel("medqa").ask("What is 2 + 2?")`. Raises BadInput.
    """
    done = finished(Path(store), run)
    return open_panel(done, arm, live_of(done.recipe, done.folder), progress)


def _can_serve(recipe: Recipe, folder: Path) -> None:
    """Refuses a key or a program that is not there now, before anything is paid for."""
    server = recipe.assistant.server
    if server is not None:
        key_in(server.api_key_env, "assistant.server")
        if server.command is not None:
            program_of(filled(server.command, {}), folder)


def _resolve(
    recipe: str | Path | Recipe, overrides: Sequence[str], folder: Path | None
) -> tuple[Recipe, Path]:
    if isinstance(recipe, Recipe):
        wanted, home = recipe, folder or Path.cwd()
    else:
        wanted, home = load_recipe(Path(recipe), overrides), Path(recipe).resolve().parent
    return wanted.model_copy(update={"teacher": placed(wanted.teacher, home)}), home
