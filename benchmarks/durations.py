"""The time that `plan --time` estimates against the time that the run takes, stage by stage.

    python benchmarks/durations.py RECIPE [--arms direct] [--set KEY=VALUE] [--cpu]
    python benchmarks/durations.py --model FOLDER [--cpu]     a small job of BRIDGE on one model

The teacher is the sandbox's, on this machine. `--cpu` counts processor seconds of one thread on
both sides, for a machine that does other work at the same time. The store must be new.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

from bridgekd import api
from bridgekd.io import artifact_store
from bridgekd.io.artifact_store import Artifact
from bridgekd.lm import measure_speed
from bridgekd.plans import model_speed
from bridgekd.plans.stage_durations import DurationEstimate
from bridgekd.sandbox.step_checker import count_wrong_steps
from bridgekd.sandbox.teacher_server import run_teacher_server
from bridgekd.sandbox.world import generate_examples

SMALL_JOB = """\
data: {{train: train.jsonl, test: test.jsonl, columns: {{id: id}}, validation_size: 12}}
teacher:
  provider: sandbox
  model: sandbox-teacher
  api_key_env: null
  max_tokens: 256
  expected_completion_tokens: [40, 80]
  price: {{input: 2.5, output: 10.0}}
budget: {{queries: 16}}
assistant:
  model: {model}
  warm_up_size: 8
  warm_up_train: {{updates: 4, batch_size: 4, n_evaluations: 1}}
  train: {{updates: 6, batch_size: 8, n_evaluations: 1}}
  max_new_tokens: 96
student:
  model: {model}
  train: {{updates: 6, batch_size: 8, n_evaluations: 1}}
  max_new_tokens: 96
runtime: {{assistant_batch_size: 16, student_batch_size: 16}}
device: cpu
"""


def write_small_job(folder: Path, model: Path) -> Path:
    """A recipe for 60 questions of the sandbox, 24 more to test."""
    for name, n, seed in (("train", 60, 0), ("test", 24, 1)):
        rows = [
            {"id": e.id, "question": e.question, "answer": e.answer}
            for e in generate_examples(n, seed)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "small.yaml"
    recipe.write_text(SMALL_JOB.format(model=model.resolve()))
    return recipe


def count_processor_seconds() -> None:
    """Stages and speeds are timed by the processor time of this process from now on."""
    clock = SimpleNamespace(monotonic=time.process_time, strftime=time.strftime, gmtime=time.gmtime)
    for module in (artifact_store, measure_speed, model_speed):
        vars(module)["time"] = clock


def print_comparison(estimate: DurationEstimate, folder: Path) -> None:
    """One line a stage, and the totals by kind."""
    print("| stage | estimated s | taken s | taken / estimated |\n| --- | --- | --- | --- |")
    kinds: dict[str, list[float]] = {}
    for name, stage in estimate.stages.items():
        stage_name, _, fingerprint = name.rpartition("-")
        made = Artifact(stage_name, fingerprint, folder / name)
        seconds = made.manifest.seconds
        print(f"| {made.stage} | {_format(stage.seconds, seconds)}")
        for kind in (stage.kind, "all"):
            total = kinds.setdefault(kind, [0.0, 0.0])
            total[0] += stage.seconds
            total[1] += seconds
    for kind, (estimated, taken) in kinds.items():
        print(f"| **{kind}** | {_format(estimated, taken)}")


def _format(estimated: float, taken: float) -> str:
    return f"{estimated:.1f} | {taken:.1f} | {taken / estimated:.2f} |"


def compare_times(recipe: Path, overrides: list[str], methods: list[str]) -> None:
    """Measure, run, and print both."""
    with run_teacher_server() as teacher:
        sets = [*overrides, f"teacher.base_url={teacher.base_url}"]
        started = time.monotonic()
        plan = api.plan(recipe, overrides=sets, methods=methods, measure_time=True)
        print(f"plan --time took {time.monotonic() - started:.0f} s")
        assert plan.durations is not None and not plan.durations.missing
        print(f"A rationale counts as {plan.durations.rationale_tokens:.0f} tokens.")
        started = time.monotonic()
        checkers = {"sandbox": count_wrong_steps}
        done = api.run(recipe, overrides=sets, methods=methods, checkers=checkers)
        print(f"The run took {time.monotonic() - started:.0f} s.\n")
    print_comparison(plan.durations, done.report.parent.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path, nargs="?")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--arms", default="")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    if (given.recipe is None) == (given.model is None):
        parser.error("give a recipe or --model")
    if given.cpu:
        count_processor_seconds()
    methods = [name for name in given.arms.split(",") if name]
    with tempfile.TemporaryDirectory() as folder:
        recipe = given.recipe or write_small_job(Path(folder), given.model)
        compare_times(recipe, given.overrides, methods)


if __name__ == "__main__":
    main()
