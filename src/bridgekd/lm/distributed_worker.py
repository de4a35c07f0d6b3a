"""One of several processes that share a training: `python -m bridgekd.lm.distributed_worker "
"FOLDER`."""

import json
import os
import pickle
import sys
from pathlib import Path

import torch.distributed as dist

from bridgekd.errors import InputError
from bridgekd.lm.callbacks import is_main_process
from bridgekd.lm.distributed import JOB, REFUSAL, RESULT, get_worker_log
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.training_job import TrainingJob
from bridgekd.lm.training_loop import run_training
from bridgekd.variants import VariantRef


def report_progress(label: str, done: int, total: int) -> None:
    """Print a line that the process above reads."""
    print(json.dumps({"done": done, "total": total}), flush=True)


def main(folder: Path) -> int:
    """Do this process's share of the job; the first process writes the log."""
    # Crash reports of C code go to the file, too.
    with open(get_worker_log(folder, int(os.environ["RANK"])), "w") as log_file:
        os.dup2(log_file.fileno(), sys.stderr.fileno())
    with open(folder / JOB, "rb") as file:
        job: TrainingJob
        objective: VariantRef
        job, objective = pickle.load(file)
    try:
        OBJECTIVES.resolve(objective)  # loads the code of one in a file
        log = run_training(job, report_progress)
    except InputError as exc:
        (folder / REFUSAL).write_text(str(exc), "utf-8")
        return exc.exit_code
    if is_main_process():
        with open(folder / RESULT, "wb") as file:
            pickle.dump(log, file)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
