"""Several processes for one comparison: each carries out methods under one seed and budget, and
leaves what it made in the store that all of them share.

The one idea: workers return nothing. Store and ledger have the locks that keep two of them off one
folder and one answer, and the parent goes through all of it afterwards and finds it made. A worker
computes in one thread, so that several do not take the cores from each other. It is stopped as by
Ctrl-C, and it ends with its parent, however that ends.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path

from threadpoolctl import threadpool_limits

from bridgekd.comparison import Comparison, build_arms
from bridgekd.errors import StoppedError
from bridgekd.io.artifact_store import Store
from bridgekd.recipe import Recipe
from bridgekd.runs.run import Run, build_run_context
from bridgekd.variants import VariantRef

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_stopping = threading.Event()  # of a worker: its parent wants it to end
_working = threading.Event()


def run_parallel(run: Run, wanted: Comparison, n_workers: int) -> None:
    """Makes the models of `wanted` and their answers in `n_workers` processes.

    What stops one worker stops all and is raised here.
    """
    variants, n_budgets = list(wanted.iter_recipes(run.recipe)), len(wanted.budgets)
    tasks = [
        (recipe, method)
        for place in range(n_budgets)
        for method in wanted.methods
        for recipe in variants[place::n_budgets]  # neighbours differ in seed: they share least
    ]
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        min(n_workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_init_worker
    )
    try:
        jobs = {
            pool.submit(_run_method, recipe, run.folder, method): (recipe, method)
            for recipe, method in tasks
        }
        run.ctx.progress("compare arms", 0, len(tasks))
        for n_done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            recipe, method = jobs[job]
            here = run.with_recipe(recipe)
            here.predict_all(build_arms(here, [method]))  # it is there; the run's file learns of it
            run.ctx.progress("compare arms", n_done, len(tasks))
    except BrokenProcessPool as exc:
        raise StoppedError(
            "a worker died, perhaps for want of memory; all that was finished is kept, so give the "
            "same command again, with fewer --workers"
        ) from exc
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        mine = [child for child in multiprocessing.active_children() if child not in others]
        _stop(mine)
        pool.shutdown(wait=True)


def _stop(workers: list[BaseProcess]) -> None:
    """Asks those that are at work to leave it as it is; idle ones end by themselves."""
    for worker in workers:
        worker.terminate()


def _init_worker() -> None:
    """A worker's first steps, before torch is imported."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, too
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _interrupt(number: int, frame: object) -> None:
    _stopping.set()
    if _working.is_set():
        raise KeyboardInterrupt


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # as if killed: store and ledger know how to go on from that


def _run_method(recipe: Recipe, folder: Path, method: VariantRef) -> None:
    """One method under one seed and budget, and its models' answers to the test questions."""
    _working.set()
    try:
        if _stopping.is_set():
            raise KeyboardInterrupt
        store = Store(folder / Path(recipe.store).expanduser())
        run = Run(recipe, folder, store, build_run_context(recipe, folder))
        run.predict_all(build_arms(run, [method]))
    finally:
        _working.clear()
