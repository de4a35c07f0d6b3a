"""The student's learning rate of the main job, chosen on the validation questions of one task.

    BRIDGEKD_DATA=FOLDER BRIDGEKD_MODELS=FOLDER python benchmarks/real/choose_settings.py

It is trained on all of the teacher's rationales of TUNING_TASK, once for each rate. The accuracy on
40 validation questions is printed; the test set is not looked at.
"""

import argparse
import os
from pathlib import Path

from tasks import TUNING_TASK, write_task

from bridgekd import api
from bridgekd.runs.metadata import load_finished_run
from bridgekd.stages.stats import TrainStats
from bridgekd.stages.train import train_student

RATES = (2e-4, 4e-4, 8e-4)
N_UPDATES = 20


def measure(recipe: Path, rate: float) -> float:
    """Return the accuracy on the validation questions, in [0, 1], of one learning rate."""
    overrides = [
        f"student.train.learning_rate={rate}",
        f"student.train.updates={N_UPDATES}",
        "data.test=two_questions.jsonl",
        f"name=choose-{rate:g}",
    ]
    api.run(recipe, overrides=overrides, methods=["direct_full"], consent=lambda plan: True,
            progress=lambda *step: print(*step, flush=True))  # fmt: skip
    run = load_finished_run(recipe.parent.parent / "store", f"choose-{rate:g}")
    (model,) = (a for a in run.ancestors.values() if a.stage == train_student.name)
    return max(value for _, value in model.read_stats(TrainStats).validations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("real"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    data, models = Path(os.environ["BRIDGEKD_DATA"]), Path(os.environ["BRIDGEKD_MODELS"])
    recipe = write_task(
        TUNING_TASK, data=data, models=models, folder=options.folder / TUNING_TASK,
        device=options.device, seed=0,
    )  # fmt: skip
    lines = (recipe.parent / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (recipe.parent / "two_questions.jsonl").write_text("".join(lines[:2]), encoding="utf-8")
    for rate in RATES:
        print(f"student, learning rate {rate:g}: {100 * measure(recipe, rate):.1f} %", flush=True)


if __name__ == "__main__":
    main()
