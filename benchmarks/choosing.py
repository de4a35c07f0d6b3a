"""What choosing buys in the sandbox: the assistant's accuracy by strategy and budget, and
TA-in-the-Loop under teachers that are wrong. Resumable: what is there is found, not made again.

    python benchmarks/choosing.py strategies [--folder choosing] [--seeds 5] [--workers 2]
    python benchmarks/choosing.py loop       the same for TA-in-the-Loop

World, base models and hyper-parameters are the demo's, fixed before. A seed sets the validation
split, all draws and all trainings. Intervals: two-level bootstrap (seeds, then questions).
"""

import argparse
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridgekd import stages
from bridgekd.core.statistics import two_level
from bridgekd.edges.recipe import load_recipe
from bridgekd.edges.rows import read_rows
from bridgekd.edges.store import Artifact, ancestors
from bridgekd.methods import method_named
from bridgekd.methods.bridge import apprentice
from bridgekd.records import Completion, Example, Prediction
from bridgekd.runs import Run, live_of, open_run
from bridgekd.sandbox.export import export
from bridgekd.sandbox.teacher_server import serve
from bridgekd.settings import Predict

AT_5 = ("bridge", "random", "hardest", "diverse", "bridge_static", "medoids", "deita", "facility",
        "clusters", "domains")  # fmt: skip
ALL_BUDGETS = ("bridge", "random", "hardest")
BUDGETS = ("1%", "3%", "10%")
WRONG = (0.1, 0.4)
# Nothing but the filter sees whether an answer is right: no arm checks against gold answers.
LOOPS = {
    "direct": ("direct", ()),
    "loop, no filter": ("ta_in_the_loop", ("loop.filter=false",)),
    "loop, P(True)": ("ta_in_the_loop", ("confidence.keep_share=80%",)),
    "loop, likelihood": (
        "ta_in_the_loop",
        ("confidence.keep_share=80%", "confidence.how=likelihood"),
    ),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One arm at one seed. `wrong`: how often the teacher is."""

    name: str
    seed: int
    budget: str = "5%"
    wrong: float = 0.1
    loop: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job: right or wrong for each test question, and picks by domain."""

    job: Job
    correct: tuple[bool, ...]
    domains: dict[str, int]
    notes: tuple[str, ...]


def jobs_of(part: str, n_seeds: int) -> list[Job]:
    seeds = range(n_seeds)
    if part == "loop":
        return [Job(n, k, wrong=w, loop=True) for k in seeds for w in WRONG for n in LOOPS]
    at_5 = [Job(name, k) for k in seeds for name in AT_5]
    return at_5 + [Job(n, k, b) for k in seeds for b in BUDGETS for n in ALL_BUDGETS]


def carried_out(folder: Path, job: Job) -> Result:
    """Makes what the job needs, or finds it."""
    method, extra = LOOPS[job.name] if job.loop else ("bridge", ())
    with serve(wrong_rate=job.wrong) as teacher:
        overrides = [
            f"seed={job.seed}",
            f"budget.queries={job.budget}",
            f"teacher.base_url={teacher.base_url}",
            f"teacher.provider=sandbox-{job.wrong:g}",
            f"name=job-{os.getpid()}",
            *(["check.keep=all"] if job.loop else []),
            *extra,
        ]
        recipe = load_recipe(folder / "sandbox.yaml", overrides)
        run = open_run(recipe, folder, live_of(recipe, folder), [method])
        model = _student(run, method) if job.loop else _assistant(run, job.name)
        size = recipe.student if job.loop else recipe.assistant
        how = Predict(ask="explain", max_new_tokens=size.max_new_tokens, batch_size=size.batch_size)
        test = run.make(stages.load_test, run.of.load_test, run.pool(), run.test_data)
        predicted = run.make(stages.predict, how, run.pool(), test, model)
    rows = read_rows(predicted.path / "predictions.parquet", Prediction)
    behind = ancestors(predicted).values()
    notes = [_calibration(a) for a in behind if "calibration" in a.facts]
    return Result(job, tuple(r.correct for r in rows), _domains(run.pool(), behind), tuple(notes))


def _assistant(run: Run, strategy: str) -> Artifact:
    return apprentice(run, run.pool(), run.warmed(run.pool()), strategy)


def _student(run: Run, method: str) -> Artifact:
    return method_named(method)(run)[method].model


def _domains(pool: Artifact, behind: Iterable[Artifact]) -> dict[str, int]:
    domain = {e.id: e.domain for e in read_rows(pool.path / "pool.parquet", Example)}
    files = [a.path / "completions.parquet" for a in behind if a.stage == "query_teacher"]
    return dict(Counter(domain[c.id] for f in files for c in read_rows(f, Completion)))


def _calibration(artifact: Artifact) -> str:
    told = artifact.facts["calibration"]
    auroc = "none" if told["auroc"] is None else f"{told['auroc']:.2f}"
    return f"{artifact.stage}: ECE {told['ece']:.2f}, AUROC {auroc}, n {told['n']}"


def _work(task: tuple[Path, Job]) -> Result:
    import torch

    torch.set_num_threads(1)
    return carried_out(*task)


def results_of(folder: Path, jobs: Sequence[Job], n_workers: int) -> list[Result]:
    """All results in the order of the jobs; what is done is told as it comes."""
    export(folder)
    pool = multiprocessing.get_context("spawn").Pool(n_workers)
    found: list[Result] = []
    with pool, open(folder / "results.jsonl", "a") as log:
        for result in pool.imap(_work, [(folder, job) for job in jobs]):
            found.append(result)
            right = sum(result.correct) / len(result.correct)
            line = {"job": str(result.job), "accuracy": right, "domains": result.domains}
            print(json.dumps(line | {"notes": result.notes}), file=log, flush=True)
            print(f"{len(found)} of {len(jobs)}: {result.job} {right:.3f}", flush=True)
    return found


def table(results: Sequence[Result], base: str) -> str:
    """Markdown: each arm's accuracy and its difference from `base` in the same row's setting."""
    groups: dict[tuple[str, float, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.job.budget, r.job.wrong, r.job.name), []).append(r)
    lines = [f"| budget | teacher wrong | arm | accuracy | minus {base} | seeds | picks |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for (budget, wrong, name), rows in groups.items():
        other = groups[budget, wrong, base]
        right, theirs = (np.array([r.correct for r in g], dtype=float) for g in (rows, other))
        cells = [budget, f"{wrong:.0%}", name, _interval(two_level(right), "")]
        cells += ["" if name == base else _interval(two_level(right - theirs[: len(right)]), "+")]
        lines.append(f"| {' | '.join([*cells, str(len(rows)), _shares(rows)])} |")
    return "\n".join(lines)


def _interval(found: tuple[float, float, float], sign: str) -> str:
    mean, low, high = (format(100 * value, f"{sign}.1f") for value in found)
    return f"{mean} ({low} to {high})"


def _shares(rows: Sequence[Result]) -> str:
    total = sum((Counter(r.domains) for r in rows), Counter())
    return ", ".join(f"{d} {n / total.total():.0%}" for d, n in sorted(total.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("strategies", "loop"))
    parser.add_argument("--folder", type=Path, default=Path("choosing"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    jobs = jobs_of(asked.part, asked.seeds)
    results = results_of(asked.folder.resolve(), jobs, asked.workers)
    print(table(results, "direct" if asked.part == "loop" else "random"))
    for r in results:
        if r.notes and asked.part == "loop":
            print(f"{r.job}: {'; '.join(r.notes)}")


if __name__ == "__main__":
    main()
