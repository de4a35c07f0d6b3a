"""From Python: `run(recipe)` does all of a recipe, `plan(recipe)` says beforehand what it means."""

import ipaddress
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridgekd.config import Recipe, count_of
from bridgekd.core.admission import Limits
from bridgekd.core.forecast import Forecast, forecast
from bridgekd.edges.data import load_examples, load_instructions
from bridgekd.edges.history import known_usage
from bridgekd.edges.recipe import load_recipe
from bridgekd.edges.store import Artifact, PlanStore
from bridgekd.edges.teacher import api_key
from bridgekd.errors import BadInput
from bridgekd.methods import method_named
from bridgekd.progress import Progress, silent
from bridgekd.records import Example
from bridgekd.runs import Run, live_of, open_run
from bridgekd.stages.buying import limits_of, requests_for
from bridgekd.stages.pool import pool_and_validation


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: its stages in order, what of them is there, and the buying still to
    come.
    """

    name: str
    stages: tuple[Artifact, ...]
    n_pool: int
    n_validation: int
    n_test: int
    n_arms_buying: int  # each with the whole budget
    to_buy: Forecast | None  # of one arm; None: everything to be paid for is there already
    to_measure: Forecast | None  # the teacher on test questions
    host: str  # where questions would be sent
    sent: str  # what of the data would be sent
    needs_consent: bool  # not for a server on this machine that wants no key


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
    object. `consent` is asked before anything is sent to a teacher that is not on this machine; the
    default says no. Raises BadInput, or Stopped with all state saved.
    """
    wanted, home = _resolve(recipe, overrides, folder)
    names = list(methods) or [wanted.method]
    planned = plan(wanted, methods=names, folder=home)
    if planned.to_buy or planned.to_measure:
        api_key(wanted.teacher)
        if planned.needs_consent and not consent(planned):
            raise BadInput(
                "nothing was sent and nothing was spent: the buying was not agreed to; "
                "agree with --yes (from Python: consent=...)"
            )
    here = open_run(wanted, home, replace(live_of(wanted, home), progress=progress, note=note))
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
    return Outcome(wanted.name, metrics, page.path / "report.html", planned)


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
    store = PlanStore(home / Path(wanted.store).expanduser())
    here = Run(wanted, home, store, live_of(wanted, home))
    arms = {
        name: arm for m in methods or [wanted.method] for name, arm in method_named(m)(here).items()
    }
    here.report(here.measure(arms))
    stages = tuple(store.seen.values())
    pool, validation = pool_and_validation(here.train_data, here.of.load_pool)
    if here.instructions is not None:
        load_instructions(here.instructions.path)
    test = load_examples(here.test_data.path, wanted.data.fields, wanted.data.answer_kind)
    measured = test[: count_of(wanted.evaluate.teacher_queries, len(test))]
    pending = [a.stage for a in stages if not a.done]
    host = urlsplit(wanted.teacher.url).hostname or ""
    return Plan(
        name=wanted.name,
        stages=stages,
        n_pool=len(pool),
        n_validation=len(validation),
        n_test=len(test),
        n_arms_buying=pending.count("query_teacher"),
        to_buy=_forecast(here, pool, limits_of(wanted.budget, len(pool)))
        if "query_teacher" in pending
        else None,
        to_measure=_forecast(here, measured, Limits(queries=len(measured)))
        if "measure_teacher" in pending
        else None,
        host=host,
        sent=_sent(wanted),
        needs_consent=not _is_loopback(host) or wanted.teacher.api_key_env is not None,
    )


def _forecast(here: Run, examples: list[Example], limits: Limits) -> Forecast:
    ask, recipe = here.of.ask, here.recipe
    return forecast(
        [r.messages for r in requests_for(ask, examples, here.shots)],
        n_queries=len(examples) if limits.queries is None else limits.queries,
        price=ask.price,
        max_tokens=recipe.teacher.max_tokens,
        limits=limits,
        known=known_usage(here.live.ledger, recipe.teacher.provider, recipe.teacher.model),
    )


def _resolve(
    recipe: str | Path | Recipe, overrides: Sequence[str], folder: Path | None
) -> tuple[Recipe, Path]:
    if isinstance(recipe, Recipe):
        return recipe, folder or Path.cwd()
    path = Path(recipe)
    return load_recipe(path, overrides), path.resolve().parent


def _sent(recipe: Recipe) -> str:
    """What of the user's data a request holds, in words."""
    prompt = recipe.teacher.prompt
    parts = ["the prompt", "the question with its options"]
    parts += ["its gold answer"] * prompt.reveal_answer
    parts += ["the few-shot examples"] * (prompt.examples is not None)
    return ", ".join(parts)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
