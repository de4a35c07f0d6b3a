"""A training shared by several processes of this machine, started and watched from here.

The one idea: the workers are ordinary torch processes of one world, as torchrun starts them, so
Trainer and accelerate find what they expect. The task goes to them as a file, the first one tells
its progress line by line, and its log comes back as a file.
"""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from bridgekd.errors import BadInput, Stopped
from bridgekd.lm.task import Task
from bridgekd.lm.training_log import TrainingLog
from bridgekd.progress import Progress

FOLDER, TASK, RESULT = "processes", "task.pickle", "result.pickle"
N_SHOWN = 5  # lines of a worker that failed


def in_processes(task: Task, progress: Progress) -> TrainingLog:
    """The log of a training that `task.runtime.num_processes` workers did together.

    Raises BadInput with a worker's own sentence, or Stopped with the last lines of one that died;
    the others are stopped with it.
    """
    folder, n, port = task.work / FOLDER, task.runtime.num_processes, free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open(folder / TASK, "wb") as file:
        pickle.dump(task, file)
    workers = [_start(folder, rank, n, port) for rank in range(n)]
    try:
        follow(workers, task, progress)
        with open(folder / RESULT, "rb") as file:
            log: TrainingLog = pickle.load(file)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
    shutil.rmtree(folder)
    return log


def _start(folder: Path, rank: int, n: int, port: int) -> "subprocess.Popen[str]":
    told = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    with open(_said(folder, rank), "w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "bridgekd.lm.worker", str(folder)],
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=said,
            text=True,
            env=os.environ | {name: str(value) for name, value in told.items()},
        )


def _said(folder: Path, rank: int) -> Path:
    return folder / f"worker-{rank}.log"


def follow(workers: list["subprocess.Popen[str]"], task: Task, progress: Progress) -> None:
    """Waits until all are done or one has failed; passes the first one's progress on."""
    assert workers[0].stdout is not None
    for line in workers[0].stdout:
        if line.startswith("{"):
            told = json.loads(line)
            progress(task.label, told["done"], told["total"])
    while any(worker.poll() is None for worker in workers):
        if any(worker.poll() for worker in workers):
            break
        time.sleep(0.05)
    for rank, worker in enumerate(workers):
        if worker.poll():
            _fail(task, rank, worker.returncode)


def _fail(task: Task, rank: int, code: int) -> None:
    said = _said(task.work / FOLDER, rank).read_text("utf-8", "replace").strip().splitlines()
    if code == BadInput.exit_code:
        raise BadInput(said[-1])
    raise Stopped(
        f"{task.label}: process {rank} of {task.runtime.num_processes} ended with {code}: "
        f"{' | '.join(said[-N_SHOWN:])}; the same command goes on from the last checkpoint"
    )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
