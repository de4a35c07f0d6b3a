"""A campaign of the chaos test: a server, a ledger, one purchase, and the kills that it survives.

Every choice is drawn from a seed. Which requests are open at a kill depends on the machine.
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
    MAX_PROCESS_S,
    RESERVE,
    ProcessStarter,
    ProcessTask,
    make_reply,
    run_purchase,
)
from faulty_teacher import Faults, run_teacher_server

KINDS = (
    "start", "random", "random", "reserved", "arrival",
    "served", "sent", "recorded", "reported", "quiet",
)  # fmt: skip
PATIENCE_S = 10.0  # to store an answer on a busy machine
ANSWER_FAULTS = Faults(truncate=0.1, refuse=0.05, latency_s=0.01)
NETWORK_FAULTS = replace(
    ANSWER_FAULTS, latency_log_sd=0.7, rate_limit=0.05, error=0.05, drop=0.05, retry_after_s=0.001
)
RECORDED = "SELECT 1 FROM attempts WHERE state = 'reserved' AND raw_response IS NOT NULL"
RESERVED = "SELECT 1 FROM attempts WHERE id >= ?"
# by exit code
STOP_REASONS = {-signal.SIGKILL: "killed", 0: "done", HardLimitError.exit_code: "stopped"}


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One process: the planned kill, how it ended, and the state of the ledger then."""

    number: int
    kind: str  # one of KINDS, or "" without a kill
    stop_reason: str  # killed, done, or stopped by the hard limit
    stop: int | None
    n_reported: int  # the number of rows that it reported last
    unsaved: frozenset[str]  # "quiet": answers that were not in the ledger in time
    attempts: tuple[Attempt, ...]
    total_reserved: int
    spend: tuple  # from sum_spend
    billed: int

    def final(self):
        """Return the final rows by the server's names."""
        return {row.name: row for row in self.attempts if row.state in FINAL}

    def n_in(self, *states):
        return sum(row.state in states for row in self.attempts)


@dataclass(frozen=True, slots=True)
class ChaosCampaign:
    """A purchase from its first process to its last, and what the monitors saw.

    The last of `processes` is the state after the end, when no request can be open.
    """

    limits: Limits
    processes: tuple[ProcessRun, ...]
    calm: PurchaseResult  # without kills, with its own ledger and server
    result: PurchaseResult
    again: PurchaseResult  # the same purchase once more
    n_calls: tuple[int, int]  # at the server before `again` and after it
    calls: Counter[str]
    served: Counter[str]
    dropped: Counter[str]  # billed, but not sent back
    arrived: tuple[tuple[int, str], ...]  # process and name
    errors: tuple[str, ...]

    @property
    def n_lost_answers(self):
        """Requests whose answer was sent, or ready, and was lost with the process."""
        n_paid = self.processes[-1].n_in("answered", "truncated")
        return self.served.total() - self.dropped.total() - n_paid


class KillSchedule:
    """Shuffles the kinds of kill, again and again. One that came too late is drawn again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._kinds = rng, deque[str]()

    def draw(self) -> str:
        if not self._kinds:
            self._kinds.extend(self._rng.sample(KINDS, len(KINDS)))
        return self._kinds.popleft()

    def put_back(self, kind: str) -> None:
        # Response and cost may be written in one transaction. Then none is ever only recorded.
        if kind not in ("", "recorded"):
            self._kinds.append(kind)


def choose_limits(number: int, rng: random.Random) -> tuple[int, Limits]:
    """Return the size of a campaign's pool and its budget: one kind of limit after the other."""
    n_pool = rng.randint(60, 100)
    queries, microusd = rng.randint(40, 59), rng.randint(8_000, 11_000)
    kinds = (
        Limits(queries=queries),
        Limits(microusd=microusd),
        Limits(),
        Limits(queries=queries, microusd=microusd),
    )
    return n_pool, kinds[number % 4]


class CampaignRunner:
    """Runs one campaign."""

    def __init__(
        self, folder: Path, starter: ProcessStarter, number: int, rng: random.Random
    ) -> None:
        self.starter, self.rng = starter, rng
        self.seed = rng.randrange(1 << 30)
        n_pool, limits = choose_limits(number, rng)
        self.task = ProcessTask(folder / "l.db", folder / "outcome", "", 0, n_pool, limits, None)
        with run_teacher_server(make_reply, seed=self.seed, faults=ANSWER_FAULTS) as server:
            calm = replace(self.task, path=folder / "calm.db", base_url=server.base_url)
            self.calm = run_purchase(calm)
        stop, extra = self.calm.charged_microusd, rng.randint(1, 20) * RESERVE
        if number % 4 == 1:  # less than the rows cost, so it is always reached
            self.task = replace(self.task, stop=int(stop * rng.uniform(0.6, 0.9)))
        elif number % 4 == 3:  # enough for all rows and some losses
            self.task = replace(self.task, stop=stop + extra)

    def run(self, kinds: KillSchedule, n_kills: int) -> ChaosCampaign:
        processes: list[ProcessRun] = []
        with run_teacher_server(make_reply, seed=self.seed, faults=NETWORK_FAULTS) as server:
            self.task = replace(self.task, base_url=server.base_url)
            self.server, self.monitor = server, ServerMonitor(server, self.task.path)
            while not processes or processes[-1].stop_reason != "done":
                assert len(processes) < 60, "this purchase does not end"
                n_killed = sum(process.stop_reason == "killed" for process in processes)
                processes.append(
                    self.run_process(kinds.draw() if n_killed < n_kills else "", processes)
                )
                if processes[-1].stop_reason != "killed":
                    kinds.put_back(processes[-1].kind)
            result = pickle.loads(self.task.outcome.read_bytes())
            n_calls = server.calls.total()
            again = run_purchase(self.task)
            n_calls = (n_calls, server.calls.total())
        processes.append(self.inspect("", "done", frozenset()))
        return ChaosCampaign(
            limits=self.task.limits,
            processes=tuple(processes),
            calm=self.calm,
            result=result,
            again=again,
            n_calls=n_calls,
            calls=server.calls,
            served=server.served,
            dropped=self.monitor.dropped,
            arrived=tuple(self.monitor.arrived),
            errors=tuple(self.monitor.errors),
        )

    def run_process(self, kind: str, before: list[ProcessRun]) -> ProcessRun:
        """Start a process, kill it as planned, and return what it left."""
        task, stopped = self.task, bool(before) and before[-1].stop_reason == "stopped"
        n_had = len(before[-1].final()) if before else 0
        n_lacking = len(self.calm.completions) - n_had
        n = self.rng.randint(1, max(1, n_lacking // 3))
        if kind == "quiet" and self.rng.random() < 0.5:
            n = 1  # a single answer must not wait for others
        self.task = task = replace(
            task,
            process=task.process + 1,
            stop=task.stop + 10 * RESERVE if stopped else task.stop,  # as its message advises
            die_at_row=n_had + n if kind == "reported" else -1,
        )
        self.n_rows = len(before[-1].attempts) if before else 0
        self.monitor.arm(task, kind, n, self.starter.kill)
        self.starter.start(task)
        try:
            unsaved = self.kill_from_outside(kind, n, n_lacking / len(self.calm.completions))
            code = self.starter.exitcode()
            assert code in STOP_REASONS, f"a process ended with exit code {code}; see its stderr"
        finally:
            self.monitor.disarm()
        return self.inspect(kind, STOP_REASONS[code], unsaved)

    def kill_from_outside(self, kind: str, n: int, fraction: float) -> frozenset[str]:
        """Kill from outside if this kind needs it. "quiet" returns unsaved answers."""
        starter, monitor, rng = self.starter, self.monitor, self.rng
        if kind in ("start", "random"):
            max_s = 0.04 if kind == "start" else 0.05 + 1.3 * fraction * self.calm.seconds
            starter.wait_until_ended(rng.uniform(0, max_s))
            starter.kill()
        if kind in ("sent", "recorded", "quiet"):
            deadline = time.monotonic() + MAX_PROCESS_S
            while not (starter.wait_until_ended(0.0002) or monitor.is_due()):
                assert time.monotonic() < deadline, "a process hangs"
        unsaved: frozenset[str] = frozenset()
        if kind == "sent":
            starter.wait_until_ended(rng.uniform(0, 0.005))
        if kind == "recorded":
            wait_for_row(self.task.path, starter, RECORDED)
        if kind == "reserved":
            wait_for_row(self.task.path, starter, RESERVED, self.n_rows + n)
        if kind == "quiet" and not starter.wait_until_ended(0):
            unsaved = self.unsaved()
        if kind in ("sent", "recorded", "reserved", "quiet"):
            starter.kill()
        return unsaved

    def unsaved(self) -> frozenset[str]:
        """Return the answers to this process that the ledger does not have after some time."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            had = {row.name for row in attempts(self.task.path) if row.state in FINAL}
            unsaved = self.monitor.get_answered(self.task.process) - had
            if not unsaved or time.monotonic() > deadline:
                return frozenset(unsaved)
            time.sleep(0.005)

    def inspect(self, kind: str, ended: str, unsaved: frozenset[str]) -> ProcessRun:
        path = self.task.path
        return ProcessRun(
            number=self.task.process,
            kind=kind,
            stop_reason=ended,
            stop=self.task.stop,
            n_reported=self.starter.n_reported,
            unsaved=unsaved,
            attempts=attempts(path),
            total_reserved=read_total_reserved(path),
            spend=sum_spend(path),
            billed=self.server.billed,  # after the ledger: a cost may still be added
        )


def wait_for_row(path: Path, starter: ProcessStarter, query: str, *values: int) -> None:
    """Return when the ledger's file shows a row, or when it is too late."""
    while not (starter.wait_until_ended(0) or has_tables(path)):
        time.sleep(0.0005)
    if not has_tables(path):
        return
    with closing(open_file(path)) as db:
        while not starter.wait_until_ended(0):
            if any(db.execute(query, values).fetchone() for _ in range(20)):
                return
