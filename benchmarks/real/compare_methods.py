"""The main job on real questions with recorded answers of real teachers: every method, one table.

    BRIDGEKD_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/real/compare_methods.py [TASK ...]
        [--base base] [--folder jobs] [--seeds 1] [--updates N]

Needs the models of train_bases.py. Writes a folder a task, where `bridgekd plan`, `compare` and
`report` go on with what is there; stop it and start it again. All students get the same number of
updates.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from tasks import TASKS, Task, prepare, read

from bridgekd import api
from bridgekd.cli.render_plan import print_plan
from bridgekd.comparison import build_arms, parse_comparison
from bridgekd.errors import InputError
from bridgekd.io.artifact_store import MANIFEST
from bridgekd.io.load_recipe import load_recipe
from bridgekd.progress import Progress
from bridgekd.runs.run import build_run_context, open_run
from bridgekd.stats.metrics import Metrics
from bridgekd.teacher.transports import prepare_teacher

ARMS = ("bridge", "bridge_random", "direct", "direct_full", "answers_only", "bridge_no_instruct",
        "mentor_kd", "ta_in_the_loop", "base_models")  # fmt: skip


def carried_out(task: Task, data: Path, folder: Path, base: Path, n_seeds: int) -> Metrics:
    """The comparison's metrics: made now, or found as they were made before."""
    recipe, console = prepare(task, data, folder, base), Console(width=140)
    print_plan(console, api.plan(recipe, methods=ARMS, seeds=n_seeds))
    wall, cpu = time.monotonic(), time.process_time()

    def tell(what: str, done: int, total: int) -> None:
        if done >= total:
            spent = time.process_time() - cpu
            print(f"  {task.name}: {what} {done:,}, {spent:.0f} s of CPU so far", flush=True)

    arms = [arm for arm in ARMS if fits(recipe, arm, tell)]
    outcome = api.run(recipe, methods=arms, seeds=n_seeds, progress=tell)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{task.name}: this call took {wall:.0f} s, {cpu:.0f} s of CPU", flush=True)
    return outcome.metrics


def fits(recipe_file: Path, arm: str, tell: Progress) -> bool:
    """Whether a method can be carried out here; says why not. Its work is found again later."""
    folder = recipe_file.parent.resolve()
    recipe = load_recipe(recipe_file)
    recipe = recipe.model_copy(update={"teacher": prepare_teacher(recipe.teacher, folder)})
    live = replace(build_run_context(recipe, folder), progress=tell)
    try:
        methods = parse_comparison(recipe, folder, [arm]).methods
        build_arms(open_run(recipe, folder, live, methods), methods)
    except InputError as exc:
        print(f"{recipe.name}: {arm} does not fit: {exc}", flush=True)
        return False
    return True


def table(task: Task, metrics: Metrics, folder: Path) -> str:
    """Markdown: every arm, and every trained student against direct distillation."""
    n_train, n_test = (len(read(folder / f"{name}.jsonl")) for name in ("train", "test"))
    manifests = [json.loads(path.read_text()) for path in folder.glob(f"runs/*/{MANIFEST}")]
    seconds = sum(m["seconds"] for m in manifests)
    lines = [
        f"{task.name}: {n_train:,} questions to train on, {n_test:,} to test; "
        f"{task.updates} updates; {len(manifests)} stages, {seconds:,.0f} s of wall time.",
        "",
        "| arm | accuracy, % | minus direct, points | p (Holm) | queries | spend | s |",
        "|---|---|---|---|---|---|---|",
    ]
    versus = {row.arm: row for row in metrics.vs_reference}
    for label, row in metrics.arms.items():
        against = versus.get(label)
        low, high = (100 * end for end in row.ci95)
        cells = [row.title, f"{100 * row.accuracy:.1f} ({low:.1f} to {high:.1f})"]
        cells += ["", ""]
        if against is not None:
            ends = "{:+.1f} to {:+.1f}".format(*(100 * end for end in against.ci95))
            cells[2:] = [f"{100 * against.difference:+.1f} ({ends})", f"{against.p_holm:.2g}"]
        spend = f"${row.spend_usd:.4f}" if task.teacher.startswith("gpt") else "no price"
        cells += [
            f"{row.n_queries:g}",
            spend if row.n_queries else "",
            f"{row.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--base", type=Path, default=Path("base"))
    parser.add_argument("--folder", type=Path, default=Path("jobs"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, help="instead of each task's own number")
    asked = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of data sets; set it")
    data = Path(os.environ["BRIDGEKD_DATA"])
    if unknown := sorted(set(asked.tasks) - TASKS.keys()):
        sys.exit(f"no task is named {unknown[0]!r}; known: {', '.join(TASKS)}")
    for name in asked.tasks:
        task, folder = TASKS[name], asked.folder / name
        task = replace(task, updates=asked.updates or task.updates)
        metrics = carried_out(task, data, folder, asked.base, asked.seeds)
        print(table(task, metrics, folder), flush=True)


if __name__ == "__main__":
    main()
