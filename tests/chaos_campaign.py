"""A world of the chaos test: a server, a ledger, one buying, and the kills that it has to survive.

Every choice is drawn from a seed; which calls happen to be in flight at a kill is left to the
machine.
"""

import pickle
import random
import signal
import time
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from bridgekd.cost.budget import Limits
from bridgekd.errors import HardLimitError
from bridgekd.ledger.spend import sum_spend
from bridgekd.sandbox.teacher_server import Faults, run_teacher_server
from bridgekd.teacher.buy_answers import PurchaseResult
from chaos_invariants import (
    FINAL,
    Attempt,
    ServerMonitor,
    attempts,
    has_tables,
    open_file,
    read_total_reserved,
)
from chaos_process import (
    LONGEST_LIFE_S,
    RESERVE,
    ProcessStarter,
    ProcessTask,
    make_reply,
    run_purchase,
)

KINDS = (
    "start", "random", "random", "reserved", "arrival",
    "served", "sent", "recorded", "told", "quiet",
)  # fmt: skip
PATIENCE_S = 10.0  # for writing down an answer on a machine that is busy with other things
ANSWER_FAULTS = Faults(truncate=0.1, refuse=0.05, latency_s=0.01)
LINE_FAULTS = replace(
    ANSWER_FAULTS, latency_log_sd=0.7, rate_limit=0.05, error=0.05, drop=0.05, retry_after_s=0.001
)
RECORDED = "SELECT 1 FROM attempts WHERE state = 'reserved' AND raw_response IS NOT NULL"
RESERVED = "SELECT 1 FROM attempts WHERE id >= ?"
ENDS = {-signal.SIGKILL: "killed", 0: "done", HardLimitError.exit_code: "stopped"}  # by exit code


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One process: how it was to die, how it ended, and what was found then."""

    number: int
    kind: str  # one of KINDS, or "" if it was left alone
    stop_reason: str  # killed, done, or stopped by the hard stop
    stop: int | None
    told: int  # how many rows it last said it had
    unwritten: frozenset[str]  # "quiet": answers that the ledger did not have in time
    attempts: tuple[Attempt, ...]
    total_reserved: int
    spend: tuple  # what `spend` says
    billed: int

    def final(self):
        """The final rows by the server's names."""
        return {row.name: row for row in self.attempts if row.state in FINAL}

    def n_in(self, *states):
        return sum(row.state in states for row in self.attempts)


@dataclass(frozen=True, slots=True)
class ChaosCampaign:
    """A buying from the first life to the last, and the witnesses' notes.

    The last of `lives` is a look at what is left, when no call can be on its way any more.
    """

    limits: Limits
    lives: tuple[ProcessRun, ...]
    calm: PurchaseResult  # of a buyer that nobody killed, with a ledger and a server of its own
    bought: PurchaseResult
    again: PurchaseResult  # the same once more when all was done
    n_calls: tuple[int, int]  # at the server before `again` and after it
    calls: Counter[str]
    served: Counter[str]
    dropped: Counter[str]  # billed, but never sent back
    arrived: tuple[tuple[int, str], ...]  # life and name
    wrongs: tuple[str, ...]

    @property
    def n_paid_in_vain(self):
        """Calls whose answer was sent, or ready to be, and died with the process."""
        n_paid = self.lives[-1].n_in("answered", "truncated")
        return self.served.total() - self.dropped.total() - n_paid


class KillSchedule:
    """The kinds of kill, shuffled, again and again; one that came too late is drawn again."""

    def __init__(self, dice: random.Random) -> None:
        self._dice, self._kinds = dice, deque[str]()

    def draw(self) -> str:
        if not self._kinds:
            self._kinds.extend(self._dice.sample(KINDS, len(KINDS)))
        return self._kinds.popleft()

    def put_back(self, kind: str) -> None:
        # Response and bill may come to be written in one transaction: then none is ever recorded.
        if kind not in ("", "recorded"):
            self._kinds.append(kind)


def limits_of(number: int, dice: random.Random) -> tuple[int, Limits]:
    """The size of a world's pool and its budget: each kind of limit in its turn."""
    n_pool = dice.randint(60, 100)
    queries, microusd = dice.randint(40, 59), dice.randint(8_000, 11_000)
    kinds = (
        Limits(queries=queries),
        Limits(microusd=microusd),
        Limits(),
        Limits(queries=queries, microusd=microusd),
    )
    return n_pool, kinds[number % 4]


class CampaignRunner:
    """One world on its way."""

    def __init__(
        self, folder: Path, nursery: ProcessStarter, number: int, dice: random.Random
    ) -> None:
        self.nursery, self.dice = nursery, dice
        self.seed = dice.randrange(1 << 30)
        n_pool, limits = limits_of(number, dice)
        self.order = ProcessTask(folder / "l.db", folder / "outcome", "", 0, n_pool, limits, None)
        with run_teacher_server(make_reply, seed=self.seed, faults=ANSWER_FAULTS) as server:
            calm = replace(self.order, path=folder / "calm.db", base_url=server.base_url)
            self.calm = run_purchase(calm)
        stop, room = self.calm.charged_microusd, dice.randint(1, 20) * RESERVE
        if number % 4 == 1:  # less than the rows cost, so that it is reached for certain
            self.order = replace(self.order, stop=int(stop * dice.uniform(0.6, 0.9)))
        elif number % 4 == 3:  # room for all rows and some losses
            self.order = replace(self.order, stop=stop + room)

    def world(self, kinds: KillSchedule, n_kills: int) -> ChaosCampaign:
        lives: list[ProcessRun] = []
        with run_teacher_server(make_reply, seed=self.seed, faults=LINE_FAULTS) as server:
            self.order = replace(self.order, base_url=server.base_url)
            self.server, self.scene = server, ServerMonitor(server, self.order.path)
            while not lives or lives[-1].stop_reason != "done":
                assert len(lives) < 60, "this buying does not come to its end"
                n_killed = sum(life.stop_reason == "killed" for life in lives)
                lives.append(self.life(kinds.draw() if n_killed < n_kills else "", lives))
                if lives[-1].stop_reason != "killed":
                    kinds.put_back(lives[-1].kind)
            bought = pickle.loads(self.order.outcome.read_bytes())
            n_calls = server.calls.total()
            again = run_purchase(self.order)
            n_calls = (n_calls, server.calls.total())
        lives.append(self.look("", "done", frozenset()))
        return ChaosCampaign(
            limits=self.order.limits,
            lives=tuple(lives),
            calm=self.calm,
            bought=bought,
            again=again,
            n_calls=n_calls,
            calls=server.calls,
            served=server.served,
            dropped=self.scene.dropped,
            arrived=tuple(self.scene.arrived),
            wrongs=tuple(self.scene.wrongs),
        )

    def life(self, kind: str, before: list[ProcessRun]) -> ProcessRun:
        """Starts a buyer, sees that it dies as it should, and looks at what it left."""
        order, stopped = self.order, bool(before) and before[-1].stop_reason == "stopped"
        n_had = len(before[-1].final()) if before else 0
        n_lacking = len(self.calm.completions) - n_had
        n = self.dice.randint(1, max(1, n_lacking // 3))
        if kind == "quiet" and self.dice.random() < 0.5:
            n = 1  # the one answer that must not wait for company
        self.order = order = replace(
            order,
            life=order.life + 1,
            stop=order.stop + 10 * RESERVE if stopped else order.stop,  # what its message advises
            die_told=n_had + n if kind == "told" else -1,
        )
        self.n_rows = len(before[-1].attempts) if before else 0
        self.scene.arm(order, kind, n, self.nursery.kill)
        self.nursery.start(order)
        try:
            unwritten = self.hand(kind, n, n_lacking / len(self.calm.completions))
            code = self.nursery.exitcode()
            assert code in ENDS, f"a buyer ended with exit code {code}; its stderr says why"
        finally:
            self.scene.disarm()
        return self.look(kind, ENDS[code], unwritten)

    def hand(self, kind: str, n: int, share: float) -> frozenset[str]:
        """Kills from outside, where the kind says so; "quiet" returns what was not written."""
        nursery, scene, dice = self.nursery, self.scene, self.dice
        if kind in ("start", "random"):
            longest = 0.04 if kind == "start" else 0.05 + 1.3 * share * self.calm.seconds
            nursery.wait_until_ended(dice.uniform(0, longest))
            nursery.kill()
        if kind in ("sent", "recorded", "quiet"):
            give_up = time.monotonic() + LONGEST_LIFE_S
            while not (nursery.wait_until_ended(0.0002) or scene.is_due()):
                assert time.monotonic() < give_up, "a buyer hangs"
        unwritten: frozenset[str] = frozenset()
        if kind == "sent":
            nursery.wait_until_ended(dice.uniform(0, 0.005))
        if kind == "recorded":
            wait_for_a_row(self.order.path, nursery, RECORDED)
        if kind == "reserved":
            wait_for_a_row(self.order.path, nursery, RESERVED, self.n_rows + n)
        if kind == "quiet" and not nursery.wait_until_ended(0):
            unwritten = self.unwritten()
        if kind in ("sent", "recorded", "reserved", "quiet"):
            nursery.kill()
        return unwritten

    def unwritten(self) -> frozenset[str]:
        """What this life was answered and the ledger does not have, given time to write it."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            had = {row.name for row in attempts(self.order.path) if row.state in FINAL}
            unwritten = self.scene.names_answered(self.order.life) - had
            if not unwritten or time.monotonic() > deadline:
                return frozenset(unwritten)
            time.sleep(0.005)

    def look(self, kind: str, ended: str, unwritten: frozenset[str]) -> ProcessRun:
        path = self.order.path
        return ProcessRun(
            number=self.order.life,
            kind=kind,
            stop_reason=ended,
            stop=self.order.stop,
            told=self.nursery.told,
            unwritten=unwritten,
            attempts=attempts(path),
            total_reserved=read_total_reserved(path),
            spend=sum_spend(path),
            billed=self.server.billed,  # after the ledger: a bill may still come
        )


def wait_for_a_row(path: Path, nursery: ProcessStarter, query: str, *values: int) -> None:
    """Returns as soon as the ledger's file shows what is asked for, or when it is too late."""
    while not (nursery.wait_until_ended(0) or has_tables(path)):
        time.sleep(0.0005)
    if not has_tables(path):
        return
    with closing(open_file(path)) as db:
        while not nursery.wait_until_ended(0):
            if any(db.execute(query, values).fetchone() for _ in range(20)):
                return
