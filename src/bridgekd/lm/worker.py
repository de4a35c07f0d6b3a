"""One of several processes that share a training: `python -m bridgekd.lm.worker FOLDER`."""

import json
import pickle
import sys
from pathlib import Path

import torch.distributed as dist

from bridgekd.errors import BadInput
from bridgekd.lm.finetune import trained
from bridgekd.lm.processes import RESULT, TASK
from bridgekd.lm.task import Task
from bridgekd.lm.watching import is_first


def tell(what: str, done: int, total: int) -> None:
    """A line that the process above reads."""
    print(json.dumps({"done": done, "total": total}), flush=True)


def main(folder: Path) -> int:
    """Does this process's share; the first one leaves the log."""
    with open(folder / TASK, "rb") as file:
        task: Task = pickle.load(file)
    try:
        log = trained(task, tell)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return exc.exit_code
    if is_first():
        with open(folder / RESULT, "wb") as file:
            pickle.dump(log, file)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
