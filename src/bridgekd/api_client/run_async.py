"""Asynchronous work from synchronous code."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; beside a running event loop (a notebook's) in another thread."""
    if not _is_loop_running():
        return asyncio.run(work)
    started: Queue[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Queue()

    async def beside() -> T:
        started.put((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, beside())
        try:
            return done.result()
        except BaseException:  # a person interrupts here, in the thread that waits
            loop, task = started.get()
            if task is not None and not done.done():
                loop.call_soon_threadsafe(task.cancel)
            raise


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
