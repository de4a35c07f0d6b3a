"""A training that several processes of this machine share, started through `accelerate launch`.

The workers run this file: `python -m bridgekd.lm.distributed FOLDER`. They read the job from a
file. The first worker prints its progress as lines of JSON and writes its log to a file. If the
parent process dies, the next report fails and the launcher stops the workers.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from bridgekd.errors import InputError, StoppedError
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.orders import ORDERS
from bridgekd.lm.training_job import TrainingJob, TrainingLog
from bridgekd.progress import Progress

FOLDER, JOB, RESULT, ERROR = "processes", "job.pickle", "result.pickle", "error.txt"
LAUNCHER_LOG, WORKER_LOG = "launcher.log", "worker-{}.log"
N_LOG_LINES = 5  # lines of a worker that failed


def run_distributed(job: TrainingJob, progress: Progress) -> TrainingLog:
    """Run a training in `job.runtime.num_processes` workers and return its log.

    Raises InputError with the message of a worker, or StoppedError with the last lines of a worker
    that died.
    """
    folder = job.resume_dir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open(folder / JOB, "wb") as file:
        refs = OBJECTIVES.get_ref(job.objective), ORDERS.get_ref(job.order)
        pickle.dump((job, *refs), file)
    if _run_launcher(folder, job, progress) != 0:
        _raise_failure(folder, job)
    with open(folder / RESULT, "rb") as file:
        log: TrainingLog = pickle.load(file)
    shutil.rmtree(folder)
    return log


def _run_launcher(folder: Path, job: TrainingJob, progress: Progress) -> int:
    """Run all workers to their end and return the launcher's exit status."""
    n = job.runtime.num_processes
    options = [
        # accelerate's option for torchrun, also on a CPU; `--cpu` would start one process only.
        "--multi_gpu", f"--num_processes={n}", "--num_machines=1", "--main_process_port=0",
        "--mixed_precision=no", "--dynamo_backend=no",
        f"--num_cpu_threads_per_process={max(1, torch.get_num_threads() // n)}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "accelerate.commands.launch", *options]
    with (
        open(folder / LAUNCHER_LOG, "w") as errors,
        subprocess.Popen(
            [*command, "-m", "bridgekd.lm.distributed", str(folder)],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        ) as launcher,
    ):  # fmt: skip
        try:
            assert launcher.stdout is not None
            for line in launcher.stdout:
                if line.startswith("{"):
                    report = json.loads(line)
                    progress(job.label, report["done"], report["total"])
        except BaseException:
            launcher.terminate()  # it stops the workers
            raise
    return launcher.returncode


def _raise_failure(folder: Path, job: TrainingJob) -> None:
    if (folder / ERROR).exists():
        raise InputError((folder / ERROR).read_text("utf-8"))
    text = (folder / LAUNCHER_LOG).read_text("utf-8", "replace")
    match = re.search(r"Root Cause.*?rank +: (\d+).*?exitcode +: (-?\d+)", text, re.DOTALL)
    name = "the launcher"
    if match is not None:
        name = f"process {match[1]} of {job.runtime.num_processes} (exit status {match[2]})"
        log = folder / WORKER_LOG.format(match[1])
        text = log.read_text("utf-8", "replace") if log.exists() else ""
    last = " | ".join(text.strip().splitlines()[-N_LOG_LINES:])
    raise StoppedError(
        f"{job.label}: {name} died (out of memory?). Last lines: {last}\n"
        "Run the same command again to continue from the last checkpoint."
    )


def run_worker(folder: Path) -> int:
    """Do the work of one process and return its exit status. The first process writes the log."""
    from bridgekd.lm.training_loop import run_training  # it imports this module

    # Crash reports of C code go to this file, too.
    with open(folder / WORKER_LOG.format(os.environ["RANK"]), "w") as log_file:
        os.dup2(log_file.fileno(), sys.stderr.fileno())
    with open(folder / JOB, "rb") as file:
        job, objective, order = pickle.load(file)
    try:
        OBJECTIVES.resolve(objective)  # loads the code of a variant in a file
        ORDERS.resolve(order)
        log = run_training(job, report_progress)
    except InputError as exc:
        (folder / ERROR).write_text(str(exc), "utf-8")
        return exc.exit_code
    if dist.get_rank() == 0:
        with open(folder / RESULT, "wb") as file:
            pickle.dump(log, file)
    dist.destroy_process_group()
    return 0


def report_progress(label: str, done: int, total: int) -> None:
    """Print a line that the parent process reads."""
    print(json.dumps({"done": done, "total": total}), flush=True)


if __name__ == "__main__":
    raise SystemExit(run_worker(Path(sys.argv[1])))
