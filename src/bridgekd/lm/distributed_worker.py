"""One process of a distributed training: `python -m bridgekd.lm.distributed_worker FOLDER`."""

import json
import os
import pickle
import sys
from pathlib import Path

import torch.distributed as dist

from bridgekd.errors import InputError
from bridgekd.lm.callbacks import is_main_process
from bridgekd.lm.distributed import ERROR, JOB, RESULT, get_worker_log
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.training_loop import run_training


def report_progress(label: str, done: int, total: int) -> None:
    """Print a line that the parent process reads."""
    print(json.dumps({"done": done, "total": total}), flush=True)


def main(folder: Path) -> int:
    """Do the work of this process. The first process writes the log."""
    # Crash reports of C code go to this file, too.
    with open(get_worker_log(folder, int(os.environ["RANK"])), "w") as log_file:
        os.dup2(log_file.fileno(), sys.stderr.fileno())
    with open(folder / JOB, "rb") as file:
        job, objective = pickle.load(file)
    try:
        OBJECTIVES.resolve(objective)  # loads the code of an objective in a file
        log = run_training(job, report_progress)
    except InputError as exc:
        (folder / ERROR).write_text(str(exc), "utf-8")
        return exc.exit_code
    if is_main_process():
        with open(folder / RESULT, "wb") as file:
            pickle.dump(log, file)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
