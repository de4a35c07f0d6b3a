"""Processes of the chaos test: each runs one purchase and can be killed."""

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
from bridgekd.sandbox.teacher_server import SANDBOX_MODEL
from bridgekd.teacher.buy_answers import PurchaseResult, buy_answers
from faulty_teacher import SANDBOX_PRICE

PROVIDER = "sandbox"
CONCURRENCY = 8
MAX_PROCESS_S = 60.0  # for a purchase that takes half a second on an idle machine
RESERVE = 2205  # of every request below: (128 + 16 + 10 bytes) * 2.5 + 182 * 10, in micro-dollars


def make_reply(question: str, seed: int) -> str:
    return "so " * (seed % 40) + "Answer: 4"


def pool(n: int) -> list[TeacherRequest]:
    return [TeacherRequest(f"e{i}", i, (Message("user", f"question{i:02}"),)) for i in range(n)]


@dataclass(frozen=True, slots=True)
class ProcessTask:
    """The task of one process.

    It kills itself when it reports `die_at_row` rows; -1: never.
    """

    path: Path
    outcome: Path
    base_url: str
    process: int
    n_pool: int
    limits: Limits
    stop: int | None
    die_at_row: int = -1


def run_purchase(task: ProcessTask, progress: Progress = ignore_progress) -> PurchaseResult:
    """Run the purchase of a task in this process."""
    teacher = TeacherOptions(
        provider=PROVIDER,
        model=SANDBOX_MODEL,
        base_url=task.base_url,
        price=SANDBOX_PRICE,
        api_key_env=None,
        max_tokens=182,
        max_concurrent_requests=CONCURRENCY,
        timeout_s=30.0,
        max_attempts=20,
    )
    with Ledger(task.path, hard_limit_microusd=task.stop) as ledger:
        return buy_answers(
            pool(task.n_pool),
            ledger,
            teacher=teacher,
            limits=task.limits,
            run="r",
            api_key=f"process{task.process}",
            progress=progress,
            backoff_s=0.005,
        )


def _run_process(task: ProcessTask, n_reported) -> None:
    def report(what: str, done: int, total: int) -> None:
        n_reported.value = done
        if done == task.die_at_row:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        result = run_purchase(task, report)
    except HardLimitError:
        sys.exit(HardLimitError.exit_code)
    task.outcome.write_bytes(pickle.dumps(result))


def _run_starter(pipe, n_reported, folder: Path) -> None:
    """Import all modules with an empty purchase, then fork one process per task."""
    empty = ProcessTask(folder / "none.db", folder, "http://127.0.0.1:9/v1", 0, 0, Limits(), None)
    run_purchase(empty)
    fork = multiprocessing.get_context("fork")
    with suppress(EOFError):
        while True:
            task = pipe.recv()
            n_reported.value = 0
            child = fork.Process(target=_run_process, args=(task, n_reported))
            child.start()
            pipe.send(child.pid)
            child.join()
            pipe.send(child.exitcode)


class ProcessStarter:
    """Starts processes within milliseconds. The forkserver is shared by all test files."""

    def __init__(self, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._n_reported = spawn.RawValue("q", 0)
        self._pipe, child_pipe = spawn.Pipe()
        self._process = spawn.Process(
            target=_run_starter, args=(child_pipe, self._n_reported, folder)
        )
        self._process.start()
        child_pipe.close()
        self._started = threading.Event()
        self._pid = 0
        self._exitcode: int | None = None

    def __enter__(self) -> "ProcessStarter":
        return self

    def __exit__(self, *error):
        if self._started.is_set() and not self.wait_until_ended(0):
            self.kill()
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    @property
    def n_reported(self) -> int:
        """The number of rows that the process reported last."""
        return int(self._n_reported.value)

    def start(self, task: ProcessTask) -> None:
        self._exitcode = None
        self._started.clear()
        self._pipe.send(task)
        self._pid = self._pipe.recv()
        self._started.set()

    def kill(self) -> None:
        """Kill the process, from any thread, unless it has ended."""
        self._started.wait(10)
        if self._exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait_until_ended(self, timeout_s: float) -> bool:
        if self._exitcode is None and self._pipe.poll(timeout_s):
            self._exitcode = self._pipe.recv()
        return self._exitcode is not None

    def exitcode(self) -> int:
        assert self.wait_until_ended(MAX_PROCESS_S), "a process hangs"
        assert self._exitcode is not None
        return self._exitcode
