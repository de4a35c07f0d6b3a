"""The main job on real questions, with pretrained models and recorded answers of real teachers.

    BRIDGEKD_DATA=FOLDER BRIDGEKD_MODELS=FOLDER python benchmarks/real/compare_methods.py [TASK ...]
        [--seeds 0 1 2] [--folder real] [--device auto] [--table]

Every task and seed is one `bridgekd compare`, which prints its plan, the time that it takes on this
machine, and its progress. It can be stopped and started again. A finished one leaves a file in
results/. Only those of `--methods` that the file lacks are run, and their arms are added to it. The
tables come from these files alone (`--table` prints them only).
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from generated_section import replace_section
from saved_arms import SavedArm, save_arm
from tasks import TASKS, TUNING_TASK, write_task

from bridgekd.io.disk import write_atomic
from bridgekd.io.metrics_file import read_metrics
from bridgekd.io.row_files import read_rows
from bridgekd.records import Example
from bridgekd.runs.metadata import load_finished_run
from bridgekd.stages.arm_results import ArmReader
from bridgekd.stages.evaluate import EvaluateSettings
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.compute_metrics import ArmResult, compute_metrics
from bridgekd.stats.metrics import ArmMetrics, Metrics

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]
SUMMARY_ARMS = (
    "student_base", "direct", "direct_full", "assistant", "random_assistant", "bridge",
    "bridge_random",
)  # fmt: skip
METHODS = ("base_models", "answers_only", "direct", "bridge_random", "bridge", "direct_full")


class SavedRun(BaseModel):
    """One task with one seed: what a finished comparison leaves in results/."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    seed: int
    methods: tuple[str, ...]
    chance: float
    chance_rule: str
    n_pool: int
    machine: str
    ids: tuple[str, ...]
    arms: tuple[SavedArm, ...]

    def add_arms(self, other: "SavedRun") -> "SavedRun":
        """Return this run with the arms of `other` that it lacks, on the same test questions."""
        if (self.ids, self.n_pool) != (other.ids, other.n_pool):
            sys.exit(f"{self.task}, seed {self.seed}: the questions differ from the saved ones.")
        known = {arm.arm for arm in self.arms}
        machines = dict.fromkeys([*self.machine.split("; "), *other.machine.split("; ")])
        return self.model_copy(
            update={
                "methods": tuple(dict.fromkeys([*self.methods, *other.methods])),
                "machine": "; ".join(machines),
                "arms": (*self.arms, *(arm for arm in other.arms if arm.arm not in known)),
            }
        )

    def to_results(self) -> list[ArmResult]:
        """Return the arms as the statistics of the package take them."""
        return [arm.to_result(self.seed, self.ids) for arm in self.arms]


def save_run(recipe: Path, task: str, seed: int, methods: Sequence[str], machine: str) -> SavedRun:
    """Return what is kept of a finished comparison."""
    run = load_finished_run(recipe.parent.parent / "store", recipe.stem)
    evaluation = run.evaluation
    examples = read_rows(evaluation.get_input("test").path / "test.parquet", Example)
    ids = tuple(e.id for e in examples)
    reader = ArmReader({e.id: e for e in examples}, None)
    settings = evaluation.read_settings(EvaluateSettings).arms
    arms = []
    for arm, predictions in zip(settings, evaluation.get_inputs("predictions"), strict=True):
        result = reader.read_arm(arm, predictions)
        if set(ids) <= result.is_correct.keys():  # the teacher answered a part of the questions
            arms.append(save_arm(result, ids))
    chance = read_metrics(evaluation.path).chance
    n_pool = len((recipe.parent / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return SavedRun(
        task=task, seed=seed, methods=tuple(methods), chance=chance.accuracy,
        chance_rule=chance.rule, n_pool=n_pool, machine=machine, ids=ids, arms=tuple(arms),
    )  # fmt: skip


def compute_task_metrics(runs: Sequence[SavedRun]) -> Metrics:
    """Return the metrics of one task over the seeds in which every arm of the first run exists."""
    results = [result for run in runs for result in run.to_results()]
    chance = ChanceBaseline(runs[0].chance, runs[0].chance_rule)
    return compute_metrics(results, {}, chance=chance)


def format_table(runs: Sequence[SavedRun]) -> str:
    """Return one task as Markdown: every arm, and each trained student minus `direct`."""
    metrics, first = compute_task_metrics(runs), runs[0]
    task = TASKS[first.task]
    lines = [
        f"### {first.task}",
        "",
        f"{first.n_pool} questions in the pool, {len(first.ids)} to test, teacher {task.teacher}, "
        f"seeds {', '.join(str(run.seed) for run in runs)}. Chance "
        f"{100 * first.chance:.1f} % ({first.chance_rule}). {first.machine}.",
        "",
        "| arm | accuracy, % | minus direct, points | p (Holm) | queries | dollars | s |",
        "|---|---|---|---|---|---|---|",
    ]
    against = {row.arm: row for row in metrics.vs_reference}
    for label, arm in metrics.arms.items():
        difference, p = "", ""
        if (row := against.get(label)) is not None:
            difference = _format_points(row.difference, row.ci95, "+.1f")
            p = f"{row.p_holm:.2g}"
        cells = [arm.title, _format_points(arm.accuracy, arm.ci95, ".1f"), difference, p]
        cells += [f"{arm.n_queries:g}", _format_dollars(task.teacher, arm), f"{arm.seconds:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_summary(tasks: Sequence[Sequence[SavedRun]]) -> str:
    """Return Markdown with the accuracies of the arms that a reader looks for, in every task."""
    columns = [compute_task_metrics(runs).arms for runs in tasks]
    heads = [
        f"{runs[0].task}: % right of {len(runs[0].ids)} (95 % interval); {_count_seeds(runs)}"
        for runs in tasks
    ]
    chance = [f"{100 * runs[0].chance:.1f}" for runs in tasks]
    rows = [["arm", *heads], ["---"] * (1 + len(tasks)), ["chance", *chance]]
    titles = {label: arm.title for arms in columns for label, arm in arms.items()}
    for label in (label for label in SUMMARY_ARMS if label in titles):
        title = titles[label]
        cells = [
            _format_points(arms[label].accuracy, arms[label].ci95, ".1f") if label in arms else ""
            for arms in columns
        ]
        rows.append([title, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _count_seeds(runs: Sequence[SavedRun]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def _format_points(value: float, interval: tuple[float, float], spec: str) -> str:
    low, high = (format(100 * end, spec) for end in interval)
    return f"{format(100 * value, spec)} ({low} to {high})"


def _format_dollars(teacher: str, arm: ArmMetrics) -> str:
    if not arm.n_queries:
        return "0"
    return f"{arm.spend_usd:.4f}" if arm.spend_usd else f"no price of {teacher}"


def read_runs(folder: Path, task: str) -> list[SavedRun]:
    """Return the saved runs of a task in the order of their seeds."""
    files = folder.glob(f"{task}-*.json")
    runs = [SavedRun.model_validate_json(file.read_bytes()) for file in files]
    return sorted(runs, key=lambda run: run.seed)


def run_task(task: str, seed: int, methods: Sequence[str], options: argparse.Namespace) -> SavedRun:
    """Run the comparison of a task with one seed, or go on with it."""
    recipe = write_task(
        task, data=_get_folder("BRIDGEKD_DATA"), models=_get_folder("BRIDGEKD_MODELS"),
        folder=options.folder / task, device=options.device, seed=seed,
    )  # fmt: skip
    command = [sys.executable, "-m", "bridgekd", "compare", str(recipe), "--yes"]
    done = subprocess.run([*command, "--arms", ",".join(methods)])
    if done.returncode:
        sys.exit(done.returncode)
    return save_run(recipe, task, seed, methods, options.machine)


def _get_folder(variable: str) -> Path:
    if variable not in os.environ:
        sys.exit(f"{variable} names no folder. Set it; see benchmarks/README.md.")
    return Path(os.environ[variable])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    claimed = [name for name in TASKS if name != TUNING_TASK]
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(claimed))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--folder", type=Path, default=Path("real"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--machine", default=f"{platform.processor()}, {os.cpu_count()} cores")
    parser.add_argument("--table", action="store_true", help="print the tables of what is done")
    parser.add_argument("--write", action="store_true", help="write them into docs and README")
    options = parser.parse_args()
    tasks = options.tasks or claimed
    if unknown := sorted(set(tasks) - set(claimed)):
        sys.exit(f"No task is named {unknown[0]!r}. Choose from: {', '.join(claimed)}.")
    for seed in () if options.table else options.seeds:
        for task in tasks:
            file = options.results / f"{task}-{seed}.json"
            known = SavedRun.model_validate_json(file.read_bytes()) if file.exists() else None
            done = () if known is None else known.methods
            if missing := [method for method in options.methods if method not in done]:
                saved = run_task(task, seed, missing, options)
                options.results.mkdir(parents=True, exist_ok=True)
                saved = saved if known is None else known.add_arms(saved)
                write_atomic(file, saved.model_dump_json(indent=1) + "\n")
    found = [runs for task in tasks if (runs := read_runs(options.results, task))]
    tables = "\n\n".join(format_table(runs) for runs in found)
    print(tables)
    if options.write:
        replace_section(ROOT / "docs" / "experiments.md", "real tasks", tables)
        replace_section(ROOT / "README.md", "real tasks", format_summary(found))


if __name__ == "__main__":
    main()
