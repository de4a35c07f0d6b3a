"""A training that several processes of this machine share, started through `accelerate launch`.

The job goes to the workers as a file. The first worker reports its progress as lines of JSON on
its standard output, and its log comes back as a file. If this process dies, the next report fails
and the launcher stops the workers.
"""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from bridgekd.errors import InputError, StoppedError
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.training_job import TrainingJob
from bridgekd.lm.training_log import TrainingLog
from bridgekd.progress import Progress

FOLDER, JOB, RESULT, REFUSAL = "processes", "job.pickle", "result.pickle", "refusal.txt"
LAUNCHER_LOG = "launcher.log"
N_LOG_LINES = 5  # lines of a worker that failed


def run_distributed(job: TrainingJob, progress: Progress) -> TrainingLog:
    """The log of a training that `job.runtime.num_processes` workers did together.

    Raises InputError with a worker's own sentence, or StoppedError with the last lines of one that
    died.
    """
    folder = job.resume_dir / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open(folder / JOB, "wb") as file:
        pickle.dump((job, OBJECTIVES.get_ref(job.objective)), file)
    if _launch(folder, job, progress) != 0:
        _raise_failure(folder, job)
    with open(folder / RESULT, "rb") as file:
        log: TrainingLog = pickle.load(file)
    shutil.rmtree(folder)
    return log


def _launch(folder: Path, job: TrainingJob, progress: Progress) -> int:
    """Run all workers to their end and return the launcher's exit status."""
    n = job.runtime.num_processes
    options = [
        # accelerate's word for torchrun, on a CPU too; `--cpu` would start one process only.
        "--multi_gpu", f"--num_processes={n}", "--num_machines=1", "--main_process_port=0",
        "--mixed_precision=no", "--dynamo_backend=no",
        f"--num_cpu_threads_per_process={max(1, torch.get_num_threads() // n)}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "accelerate.commands.launch", *options]
    with (
        open(folder / LAUNCHER_LOG, "w") as errors,
        subprocess.Popen(
            [*command, "-m", "bridgekd.lm.distributed_worker", str(folder)],
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


def get_worker_log(folder: Path, rank: int) -> Path:
    """Return the file that takes the standard error of a worker."""
    return folder / f"worker-{rank}.log"


def _raise_failure(folder: Path, job: TrainingJob) -> None:
    if (folder / REFUSAL).exists():
        raise InputError((folder / REFUSAL).read_text("utf-8"))
    text = (folder / LAUNCHER_LOG).read_text("utf-8", "replace")
    found = re.search(r"Root Cause.*?rank +: (\d+).*?exitcode +: (-?\d+)", text, re.DOTALL)
    which = "the launcher"
    if found is not None:
        which = f"process {found[1]} of {job.runtime.num_processes} (exit status {found[2]})"
        log = get_worker_log(folder, int(found[1]))
        text = log.read_text("utf-8", "replace") if log.exists() else ""
    last = " | ".join(text.strip().splitlines()[-N_LOG_LINES:])
    raise StoppedError(
        f"{job.label}: {which} died (out of memory?). Last lines: {last}\n"
        "Run the same command again to continue from the last checkpoint."
    )
