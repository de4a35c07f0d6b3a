"""What a run will do and what it will cost, from the recipe, the data, the store and the ledger.

Sends nothing, writes nothing, takes no lock. What is known is used exactly: a ranking that is made
(or that only a seed decides) names the prompts, and an answer in the ledger names its cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel

from bridgekd import settings as of
from bridgekd.config import Price, Recipe, Teacher, count_of, is_loopback, published_price
from bridgekd.core.admission import Limits
from bridgekd.core.bounds import Settled, calls_for
from bridgekd.core.calls import TeacherRequest, call_key, call_request
from bridgekd.core.costs import microusd, prompt_token_bound
from bridgekd.core.draws import drawn
from bridgekd.core.forecast import Forecast, Known, best_known, forecast
from bridgekd.core.replies import Bill
from bridgekd.core.selection import rank
from bridgekd.edges.data import load_examples, load_instructions
from bridgekd.edges.rows import read_column
from bridgekd.edges.store import Artifact, PlanStore, Stage
from bridgekd.ledger.file import refuse_shared
from bridgekd.ledger.history import held_microusd, known_answers, settled_calls
from bridgekd.methods import method_named
from bridgekd.records import Example, Pick
from bridgekd.runs import Run, live_of
from bridgekd.stages.buying import limits_of, requests_for
from bridgekd.stages.pool import pool_and_validation
from bridgekd.teacher.orders import billed_messages, bound_of, refuse_long
from bridgekd.teacher.replay import ReplayLine

RECORDINGS = "the recordings"  # stands for the host where nothing is sent


@dataclass(frozen=True, slots=True)
class PricedBy:
    """The price of a call as it will be charged, and where it is from. `read` is the date of the
    package's table; empty for the recipe's own. `batch` is the factor that is in `price`.
    """

    model: str
    price: Price | None
    read: str = ""
    source: str = ""
    batch: float | None = None


@dataclass(frozen=True, slots=True)
class Purchase:
    """One buying still to come: a stage of the run, by its folder.

    `chosen`: its prompts are known, in their order; else nobody knows yet which of the pool they
    will be.
    """

    stage: str
    folder: str
    choice: str  # the strategy that chooses its prompts
    chosen: bool
    limits: Limits
    forecast: Forecast
    n_unrecorded: int = 0  # prompts it may ask that a replayed teacher has nothing for


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
    purchases: tuple[Purchase, ...]  # empty: everything to be paid for is there already
    priced: PricedBy
    hard_stop_microusd: int | None
    held_microusd: int  # by the ledger, against the hard stop
    host: str  # where questions would be sent
    sent: str  # what of the data would be sent
    needs_consent: bool  # not for a server on this machine that wants no key
    serves: bool = False  # whether a stage to come asks the assistant's server
    served_at: str = ""  # its host, where that is not this machine

    @property
    def room_microusd(self) -> int | None:
        """What the hard stop leaves for new money; None: there is none."""
        if self.hard_stop_microusd is None:
            return None
        return max(0, self.hard_stop_microusd - self.held_microusd)

    @property
    def to_buy(self) -> Forecast | None:
        """The first purchase under the budget, if one is to come."""
        return next((p.forecast for p in self.purchases if p.stage == "query_teacher"), None)

    @property
    def to_measure(self) -> Forecast | None:
        """The teacher on test questions, if that is to come."""
        return next((p.forecast for p in self.purchases if p.stage == "measure_teacher"), None)


class _Seen(PlanStore):
    """A planning store that remembers what each stage would be made from."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.made_from: dict[str, tuple[BaseModel, tuple[Artifact, ...]]] = {}

    def make(self, stage: Stage, settings: BaseModel, *inputs: Artifact, live: object) -> Artifact:
        planned = super().make(stage, settings, *inputs, live=live)
        self.made_from[planned.path.name] = (settings, inputs)
        return planned


@dataclass(frozen=True, slots=True)
class _World:
    """What planning works on."""

    run: Run
    store: _Seen
    pool: list[Example]
    test: list[Example]


def planned(recipe: Recipe, folder: Path, methods: Sequence[str], store: Path) -> Plan:
    """What running `methods` of a recipe in `folder` would do with a store."""
    seen = _Seen(store)
    here = Run(recipe, folder, seen, live_of(recipe, folder))
    arms = {name: arm for m in methods for name, arm in method_named(m)(here).items()}
    here.report(here.measure(arms))
    stages = tuple(seen.seen.values())
    pool, validation = pool_and_validation(here.train_data, here.of.load_pool)
    if here.instructions is not None:
        load_instructions(here.instructions.path)
    test = load_examples(here.test_data.path, recipe.data.fields, recipe.data.answer_kind)
    world = _World(here, seen, pool, test)
    paid = {"query_teacher": _to_buy, "measure_teacher": _to_measure}
    pending = [a for a in stages if a.stage in paid and not a.done]
    if pending:
        refuse_shared(here.live.ledger)
    replayed = recipe.teacher.transport == "replay"
    host = RECORDINGS if replayed else urlsplit(recipe.teacher.url).hostname or ""
    stop = recipe.hard_stop_usd
    serves = any(not a.done and _served(seen.made_from[a.path.name][0]) for a in stages)
    return Plan(
        name=recipe.name,
        stages=stages,
        n_pool=len(pool),
        n_validation=len(validation),
        n_test=len(test),
        purchases=tuple(paid[a.stage](world, a) for a in pending),
        priced=_priced(recipe.teacher),
        hard_stop_microusd=None if stop is None else microusd(stop),
        held_microusd=held_microusd(here.live.ledger),
        host=host,
        sent=_sent(recipe),
        needs_consent=not replayed
        and (not is_loopback(host) or recipe.teacher.api_key_env is not None),
        serves=serves,
        served_at=_abroad(recipe) if serves else "",
    )


def foresee(
    requests: Sequence[TeacherRequest],
    *,
    teacher: Teacher,
    limits: Limits,
    ledger: Path,
    ordered: bool,
    hard_stop_usd: float | None = None,
) -> Forecast:
    """The bill of `requests`, in their order or, unless `ordered`, of any `limits.queries` of
    them, by what the ledger knows.
    """
    named = [call_request(teacher, r) for r in requests]
    keys = [call_key(call) for call in named]
    settled = settled_calls(ledger, keys)
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    price, room = teacher.tariff, None
    if hard_stop_usd is not None:
        room = microusd(hard_stop_usd) - held_microusd(ledger)
    if teacher.transport == "replay":
        settled = _recorded(teacher, keys, requests) | settled
        price, known = price or Price(input=0, output=0), Known("recordings")
    else:
        known = _known(ledger, named, keys if ordered else (), teacher)
        if ordered and requests:  # refuses a prompt that is too long for its price
            longest = max(requests, key=lambda r: prompt_token_bound(r.messages))
            refuse_long(teacher, longest.id, bound_of(teacher, longest))
    return forecast(
        calls_for(
            [billed_messages(teacher, r) for r in requests],
            price,
            teacher.max_tokens,
            settled=[settled.get(key) for key in keys],
            repeats=[first[key] != place for place, key in enumerate(keys)],
        ),
        price=price,
        max_tokens=teacher.max_tokens,
        limits=limits,
        ordered=ordered,
        known=known,
        room_microusd=room,
    )


def _recorded(
    teacher: Teacher, keys: Sequence[str], requests: Sequence[TeacherRequest]
) -> dict[str, Settled]:
    """What replaying each request will be billed."""
    line = ReplayLine(teacher)
    bills = {key: line.most(r, Bill()) for key, r in zip(keys, requests, strict=True)}
    return {
        key: Settled(b.cost_microusd, b.n_prompt_tokens + b.n_completion_tokens, owed=True)
        for key, b in bills.items()
    }


def _known(
    ledger: Path, named: Sequence[Mapping[str, Any]], keys: Sequence[str], teacher: Teacher
) -> Known:
    answers, mine = known_answers(ledger, named[0]) if named else [], set(keys)
    return best_known(
        [a.usage for a in answers if a.alike and a.key in mine],
        [a.usage for a in answers if a.alike and a.key not in mine],
        [a.usage for a in answers if not a.alike],
        teacher.expected_tokens,
    )


def _to_buy(world: _World, artifact: Artifact) -> Purchase:
    settings, (_, ranking, *_) = world.store.made_from[artifact.path.name]
    chosen_by, known = world.store.made_from[ranking.path.name]
    assert isinstance(settings, of.QueryTeacher) and isinstance(chosen_by, of.Select)
    later = any(a.stage == "query_teacher" for a in known)
    wanted = _ranked(world.pool, ranking, chosen_by, later=later)
    limits = limits_of(settings.budget, len(world.pool), settings.part)
    return _purchase(world, artifact, settings.ask, wanted, limits, chosen_by.strategy)


def _to_measure(world: _World, artifact: Artifact) -> Purchase:
    settings, _ = world.store.made_from[artifact.path.name]
    assert isinstance(settings, of.MeasureTeacher)
    n = count_of(settings.queries, len(world.test))
    places = drawn(settings.seed, "teacher test", n=n, of=len(world.test))
    hidden = settings.ask.prompt.model_copy(update={"reveal_answer": False})
    ask = settings.ask.model_copy(update={"prompt": hidden})
    wanted = [world.test[i] for i in places]
    return _purchase(world, artifact, ask, wanted, Limits(queries=n), "random")


def _purchase(
    world: _World,
    artifact: Artifact,
    ask: of.Ask,
    wanted: Sequence[Example] | None,
    limits: Limits,
    choice: str,
) -> Purchase:
    run = world.run
    asked = world.pool if wanted is None else wanted[: limits.queries]
    requests = requests_for(ask, asked, run.shots)
    told = foresee(
        requests,
        teacher=run.recipe.teacher,
        limits=limits,
        ledger=run.live.ledger,
        ordered=wanted is not None,
        hard_stop_usd=run.recipe.hard_stop_usd,
    )
    chosen = wanted is not None
    n_lacks = 0
    if run.recipe.teacher.transport == "replay":
        n_lacks = len(ReplayLine(run.recipe.teacher).lacks(requests))
    return Purchase(artifact.stage, artifact.path.name, choice, chosen, limits, told, n_lacks)


def _ranked(
    pool: list[Example], ranking: Artifact, chosen_by: of.Select, *, later: bool
) -> list[Example] | None:
    """The pool in the order of buying; None where that takes scores that are still to be made, or
    hangs on what an earlier round asks.
    """
    examples = {e.id: e for e in pool}
    if ranking.done:
        order = read_column(ranking.path / "ranking.parquet", Pick, "id")
    elif chosen_by.strategy == "random" and not later:  # the seed alone decides
        none, nowhere = np.zeros(len(pool)), np.empty((len(pool), 0), dtype=np.float32)
        ids = list(examples)
        drawn_up = rank("random", ids, none, nowhere, n_chosen=0, alpha=0.0, seed=chosen_by.seed)
        order = [ids[row] for row in drawn_up.rows]
    else:
        return None
    return [examples[id] for id in order]


def _priced(teacher: Teacher) -> PricedBy:
    published = published_price(teacher.url, teacher.model) if teacher.price is None else None
    price = published.price if published else teacher.price
    batch = price.batch if price is not None and teacher.transport == "batch" else None
    return PricedBy(
        teacher.model,
        teacher.tariff,
        published.read if published else "",
        published.source if published else "",
        batch,
    )


def _served(settings: BaseModel) -> bool:
    return isinstance(settings, of.Answered) and "server" in (settings.backend, settings.scoring)


def _abroad(recipe: Recipe) -> str:
    """The host of the assistant's server, if it is another machine."""
    server = recipe.assistant.server
    host = urlsplit(server.base_url or "").hostname or "" if server is not None else ""
    return host if host and not is_loopback(host) else ""


def _sent(recipe: Recipe) -> str:
    """What of the user's data a request holds, in words."""
    prompt, fields = recipe.teacher.prompt, recipe.data.fields
    parts = ["the prompt", f"the question (column {fields.question!r})"]
    parts += [f"its options (column {fields.choices!r})"] * (fields.choices is not None)
    parts += [f"its gold answer (column {fields.answer!r})"] * prompt.reveal_answer
    parts += ["the few-shot examples"] * (prompt.examples is not None)
    return ", ".join(parts)
