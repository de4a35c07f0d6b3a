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

from bridgekd.comparison import build_arms, parse_comparison
from bridgekd.io.artifact_store import Artifact
from bridgekd.io.load_recipe import load_recipe
from bridgekd.io.sources import resolve_data
from bridgekd.methods.bridge import teach_assistant
from bridgekd.runs.run import Arm, Run, build_run_context, open_run
from bridgekd.sandbox.teacher_server import run_teacher_server
from bridgekd.stages.load_data import build_load_pool_settings, load_pool
from bridgekd.stages.train import build_warm_up_settings, warm_up
from bridgekd.variants import VariantRef

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Answers = Mapping[str, Path]  # by the arm's name: the folder of its predictions
Phase = Callable[[Run], list[Arm]]


@dataclass(frozen=True, slots=True)
class Job:
    """A method of METHODS or PHASES, or "teacher"; `wrong` is how often the teacher is."""

    method: str
    settings: tuple[str, ...] = ()
    wrong: float = 0.1
    seed: int = 0


def build_assistant_alone(run: Run) -> list[Arm]:
    """Phase 1 alone: no student is trained."""
    pool = run.load_pool()
    warm = run.warm_up(pool)
    return [*run.build_warm_arm(warm), build_taught_arm(run, pool, warm)]


def define_shifted_phase(domain: str) -> Phase:
    """Phase 1 with an assistant warmed up on questions of one domain; the pool has all."""

    def method(run: Run) -> list[Arm]:
        pool = run.load_pool()
        other_data = resolve_data(f"shifted-{domain}.jsonl", run.folder)
        other = run.make(load_pool, build_load_pool_settings(run.recipe, run.folder), other_data)
        warm = run.make(warm_up, build_warm_up_settings(run.recipe), run.assistant, other)
        return [build_taught_arm(run, pool, warm)]

    return method


def build_taught_arm(run: Run, pool: Artifact, warm: Artifact) -> Arm:
    """The assistant that was taught from `warm` on."""
    assistant, _ = teach_assistant(run, pool, warm)
    return Arm("assistant", "Assistant, trained", assistant, "assistant")


SHIFTS = ("accounts", "clinic", "statute")
PHASES: dict[str, Phase] = {
    "assistant": build_assistant_alone,
    **{f"shifted to {domain}": define_shifted_phase(domain) for domain in SHIFTS},
}


def run_job(folder: Path, job: Job) -> Answers:
    """Makes the models of a job and their answers to the test questions, or finds them."""
    with run_teacher_server(wrong_rate=job.wrong) as teacher:
        overrides = [
            f"seed={job.seed}",
            f"teacher.base_url={teacher.base_url}",
            f"teacher.provider=sandbox-{job.wrong:g}",
            f"name=job-{os.getpid()}",
            "hard_limit_usd=1000",  # the sandbox's teacher takes play money, of all jobs together
            *job.settings,
        ]
        recipe = load_recipe(folder / "sandbox.yaml", overrides)
        run = open_run(
            recipe, folder, build_run_context(recipe, folder), [VariantRef(name=job.method)]
        )
        made = _make_answers(run, job.method)
        run.write_metadata("done")
    return {arm: answers.path for arm, answers in made.items()}


def run_jobs_in_parallel(
    folder: Path, jobs: Sequence[Job], n_workers: int, report: Callable[[str], None]
) -> dict[Job, Answers]:
    """Run all jobs in `n_workers` processes of one thread; `report` gets a line for each job."""
    context = multiprocessing.get_context("spawn")
    found: dict[Job, Answers] = {}
    with ProcessPoolExecutor(n_workers, context, initializer=_use_one_thread) as pool:
        waiting = {pool.submit(run_job, folder, job): job for job in jobs}
        try:
            for done in as_completed(waiting):
                job = waiting[done]
                found[job] = done.result()
                report(f"{len(found)} of {len(jobs)}: {describe_job(job)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def repeat_for_seeds(jobs: Sequence[Job], seeds: Sequence[int]) -> list[Job]:
    """Every job under every seed, once; neighbours differ in seed, as these share least. The
    teacher is measured once.
    """
    every = [
        replace(job, seed=seed)
        for job in dict.fromkeys(jobs)
        for seed in (seeds[:1] if job.method == "teacher" else seeds)
    ]
    return list(dict.fromkeys(every))


def describe_job(job: Job) -> str:
    """A job in a line."""
    return f"{job.method}, seed {job.seed}, {' '.join([*job.settings, f'wrong={job.wrong:g}'])}"


def _make_answers(run: Run, method: str) -> Mapping[str, Artifact]:
    if method == "teacher":
        return {arm.name: made for arm, made in run.evaluate_teacher()}
    if method in PHASES:
        arms = PHASES[method](run)
    else:
        arms = build_arms(run, parse_comparison(run.recipe, run.folder, [method]).methods)
    return dict(zip((arm.name for arm in arms), run.predict_all(arms), strict=True))


def _use_one_thread() -> None:
    os.environ.update(dict.fromkeys(THREADS, "1"))
    import torch

    torch.set_num_threads(1)
