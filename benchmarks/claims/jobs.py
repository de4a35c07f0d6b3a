"""One method under one seed and one change of the demo's recipe, carried out over a store that all
jobs share.

The one idea: a job returns where its models' answers lie. What is there is found, so a reproduction
that was stopped goes on, and two experiments that share a model train it once.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from bridgekd import stages
from bridgekd.edges.recipe import load_recipe
from bridgekd.edges.sources import data_source
from bridgekd.edges.store import Artifact
from bridgekd.methods import METHODS
from bridgekd.methods.bridge import apprentice
from bridgekd.runs import Arm, Arms, Method, Run, live_of, open_run
from bridgekd.sandbox.teacher_server import serve

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Answers = Mapping[str, Path]  # by the arm's name: the folder of its predictions


@dataclass(frozen=True, slots=True)
class Job:
    """A method of METHODS or PHASES, or "teacher"; `wrong` is how often the teacher is."""

    method: str
    settings: tuple[str, ...] = ()
    wrong: float = 0.1
    seed: int = 0


def apprenticeship(run: Run) -> Arms:
    """Phase 1 alone: no student is trained."""
    pool = run.pool()
    warm = run.warmed(pool)
    return run.warm_arm(warm) | {"assistant": Arm(apprentice(run, pool, warm), "assistant")}


def shifted(domain: str) -> Method:
    """Phase 1 with an assistant warmed up on questions of one domain; the pool has all."""

    def method(run: Run) -> Arms:
        pool = run.pool()
        elsewhere = data_source(f"elsewhere-{domain}.jsonl", run.folder)
        other = run.make(stages.load_pool, run.of.load_pool, elsewhere)
        warm = run.make(stages.warm_up, run.of.warm_up, other, run.assistant)
        return {"assistant": Arm(apprentice(run, pool, warm), "assistant")}

    return method


SHIFTS = ("accounts", "clinic", "statute")
PHASES: dict[str, Method] = {
    "apprenticeship": apprenticeship,
    **{f"shifted to {domain}": shifted(domain) for domain in SHIFTS},
}


def carried_out(folder: Path, job: Job) -> Answers:
    """Makes the models of a job and their answers to the test questions, or finds them."""
    with serve(wrong_rate=job.wrong) as teacher:
        overrides = [
            f"seed={job.seed}",
            f"teacher.base_url={teacher.base_url}",
            f"teacher.provider=sandbox-{job.wrong:g}",
            f"name=job-{os.getpid()}",
            "hard_stop_usd=1000",  # the sandbox's teacher takes play money, of all jobs together
            *job.settings,
        ]
        recipe = load_recipe(folder / "sandbox.yaml", overrides)
        run = open_run(recipe, folder, live_of(recipe, folder), [job.method])
        made = _made(run, job.method)
        run.write_journal("done")
    return {arm: answers.path for arm, answers in made.items()}


def side_by_side(
    folder: Path, jobs: Sequence[Job], n_workers: int, tell: Callable[[str], None]
) -> dict[Job, Answers]:
    """All jobs by so many processes of one thread each; a line is told for each that is done."""
    context = multiprocessing.get_context("spawn")
    found: dict[Job, Answers] = {}
    with ProcessPoolExecutor(n_workers, context, initializer=_one_thread) as pool:
        waiting = {pool.submit(carried_out, folder, job): job for job in jobs}
        try:
            for done in as_completed(waiting):
                job = waiting[done]
                found[job] = done.result()
                tell(f"{len(found)} of {len(jobs)}: {said(job)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def seeded(jobs: Sequence[Job], seeds: Sequence[int]) -> list[Job]:
    """Every job under every seed, once; neighbours differ in seed, as these share least. The
    teacher is measured once.
    """
    every = [
        replace(job, seed=seed)
        for job in dict.fromkeys(jobs)
        for seed in (seeds[:1] if job.method == "teacher" else seeds)
    ]
    return list(dict.fromkeys(every))


def said(job: Job) -> str:
    """A job in a line."""
    return f"{job.method}, seed {job.seed}, {' '.join([*job.settings, f'wrong={job.wrong:g}'])}"


def _made(run: Run, method: str) -> Mapping[str, Artifact]:
    if method == "teacher":
        return run.teacher_measured()
    return run.predicted((METHODS | PHASES)[method](run))


def _one_thread() -> None:
    os.environ.update(dict.fromkeys(THREADS, "1"))
    import torch

    torch.set_num_threads(1)
