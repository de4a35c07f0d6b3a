"""Several processes for one comparison: each runs methods under one seed and budget, and leaves the
artifacts in the store that all of them share.

The one idea: workers return nothing. Locks in the store and the ledger keep two workers from making
one artifact or buying one answer. The parent runs the comparison afterwards and finds every
artifact. A worker computes in one thread, so that workers do not compete for cores. It stops like
after Ctrl-C, and it always ends with its parent.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from threadpoolctl import threadpool_limits

from bridgekd.comparison import Comparison, build_arms
from bridgekd.errors import StoppedError
from bridgekd.io.artifact_store import Store
from bridgekd.paths import resolve_path
from bridgekd.recipe import Recipe
from bridgekd.runs.figures import make_figures
from bridgekd.runs.run import Run, build_run_context
from bridgekd.variants import VariantRef

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_stopping = threading.Event()  # in a worker: its parent has stopped it
_working = threading.Event()


def run_parallel(run: Run, comparison: Comparison, n_workers: int) -> None:
    """Make the models of a comparison and their predictions in `n_workers` processes.

    An error that stops one worker stops all and is raised here.
    """
    variants, n_budgets = list(comparison.iter_recipes(run.recipe)), len(comparison.budgets)
    tasks = [
        (recipe, method)
        for budget in range(n_budgets)
        for method in comparison.methods
        for recipe in variants[budget::n_budgets]  # neighbors differ in seed: they share least
    ]
    earlier_children = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        min(n_workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_init_worker
    )
    try:
        futures = {
            pool.submit(_run_method, recipe, run.folder, method): (recipe, method)
            for recipe, method in tasks
        }
        run.ctx.progress("compare arms", 0, len(tasks))
        for n_done, future in enumerate(as_completed(futures), start=1):
            future.result()
            recipe, method = futures[future]
            variant = run.with_recipe(recipe)
            # The artifacts exist; this records them in the run's metadata.
            _measure_method(variant, method)
            run.ctx.progress("compare arms", n_done, len(tasks))
    except BrokenProcessPool as exc:
        raise StoppedError(
            "A worker process died (out of memory?). Finished stages are saved. Run the same "
            "command with fewer --workers."
        ) from exc
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in earlier_children:
                child.terminate()
        pool.shutdown(wait=True)


def _init_worker() -> None:
    """Prepare a worker before torch is imported."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the parent, too
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _interrupt(number: int, frame: object) -> None:
    """Stop the work of a worker; an idle worker ends by itself."""
    _stopping.set()
    if _working.is_set():
        raise KeyboardInterrupt


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # like a kill, from which store and ledger recover


def _run_method(recipe: Recipe, folder: Path, method: VariantRef) -> None:
    """Make one method's models under one seed and budget, and their predictions."""
    _working.set()
    try:
        if _stopping.is_set():
            raise KeyboardInterrupt
        store = Store(resolve_path(folder, recipe.store))
        run = Run(recipe, folder, store, build_run_context(recipe, folder))
        _measure_method(run, method)
    finally:
        _working.clear()


def _measure_method(run: Run, method: VariantRef) -> None:
    arms = build_arms(run, [method])
    run.predict_all(arms)
    make_figures(run, arms)
