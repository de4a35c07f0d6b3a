"""Buyers for the chaos test: processes that call `buy` and nothing else, and can be killed."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bridgekd.api_client.request_key import TeacherRequest
from bridgekd.cost.budget import Limits
from bridgekd.errors import HardLimitError
from bridgekd.ledger.ledger import Ledger
from bridgekd.progress import Progress, ignore_progress
from bridgekd.recipe import TeacherOptions
from bridgekd.records import Message
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL, SANDBOX_PRICE
from bridgekd.teacher.buy_answers import PurchaseResult, buy_answers

PROVIDER = "sandbox"
CONCURRENCY = 8
LONGEST_LIFE_S = 60.0  # of a buyer that takes half a second where nothing else is running
RESERVE = 2205  # of every request below: (128 + 16 + 10 bytes) * 2.5 + 182 * 10, in micro-dollars


def make_reply(question: str, seed: int) -> str:
    return "so " * (seed % 40) + "Answer: 4"


def pool(n: int) -> list[TeacherRequest]:
    return [TeacherRequest(f"e{i}", i, (Message("user", f"question{i:02}"),)) for i in range(n)]


@dataclass(frozen=True, slots=True)
class ProcessTask:
    """What one life of a buyer is to do.

    It dies by its own hand as it says that it has `die_told` rows; -1 for never.
    """

    path: Path
    outcome: Path
    base_url: str
    life: int
    n_pool: int
    limits: Limits
    stop: int | None
    die_told: int = -1


def run_purchase(order: ProcessTask, progress: Progress = ignore_progress) -> PurchaseResult:
    """Buys what the order says, in this process."""
    teacher = TeacherOptions(
        provider=PROVIDER,
        model=SANDBOX_MODEL,
        base_url=order.base_url,
        price=SANDBOX_PRICE,
        api_key_env=None,
        max_tokens=182,
        max_concurrent_requests=CONCURRENCY,
        timeout_s=30.0,
        max_attempts=20,
    )
    with Ledger(order.path, hard_limit_microusd=order.stop) as ledger:
        return buy_answers(
            pool(order.n_pool),
            ledger,
            teacher=teacher,
            limits=order.limits,
            run="r",
            api_key=f"life{order.life}",
            progress=progress,
            backoff_s=0.005,
        )


def _live(order: ProcessTask, told) -> None:
    def tell(what: str, done: int, total: int) -> None:
        told.value = done
        if done == order.die_told:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        bought = run_purchase(order, tell)
    except HardLimitError:
        sys.exit(HardLimitError.exit_code)
    order.outcome.write_bytes(pickle.dumps(bought))


def _nurse(line, told, folder: Path) -> None:
    """Imports whatever a buying imports by buying nothing, then forks one buyer an order."""
    nothing = ProcessTask(folder / "none.db", folder, "http://127.0.0.1:9/v1", 0, 0, Limits(), None)
    run_purchase(nothing)
    fork = multiprocessing.get_context("fork")
    with suppress(EOFError):
        while True:
            order = line.recv()
            told.value = 0
            child = fork.Process(target=_live, args=(order, told))
            child.start()
            line.send(child.pid)
            child.join()
            line.send(child.exitcode)


class ProcessStarter:
    """Starts buyers within milliseconds. Not the forkserver, which all test files share."""

    def __init__(self, folder: Path) -> None:
        processes = multiprocessing.get_context("spawn")
        self._told = processes.RawValue("q", 0)
        self._line, theirs = processes.Pipe()
        self._process = processes.Process(target=_nurse, args=(theirs, self._told, folder))
        self._process.start()
        theirs.close()
        self._born = threading.Event()
        self._pid = 0
        self._exitcode: int | None = None

    def __enter__(self) -> "ProcessStarter":
        return self

    def __exit__(self, *error):
        if self._born.is_set() and not self.wait_until_ended(0):
            self.kill()
        self._line.close()
        self._process.join(10)
        self._process.kill()

    @property
    def told(self) -> int:
        """How many rows the buyer last said it had."""
        return int(self._told.value)

    def start(self, order: ProcessTask) -> None:
        self._exitcode = None
        self._born.clear()
        self._line.send(order)
        self._pid = self._line.recv()
        self._born.set()

    def kill(self) -> None:
        """From any thread; a buyer that is already gone is left alone."""
        self._born.wait(10)
        if self._exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait_until_ended(self, timeout_s: float) -> bool:
        if self._exitcode is None and self._line.poll(timeout_s):
            self._exitcode = self._line.recv()
        return self._exitcode is not None

    def exitcode(self) -> int:
        assert self.wait_until_ended(LONGEST_LIFE_S), "a buyer hangs"
        assert self._exitcode is not None
        return self._exitcode
