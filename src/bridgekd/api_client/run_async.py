"""Run asynchronous work from synchronous code."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. Under a running event loop (a notebook's), use another thread."""
    if not _is_loop_running():
        return asyncio.run(work)
    started: Queue[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Queue()

    async def run() -> T:
        started.put((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(asyncio.run, run())
        try:
            return result.result()
        except BaseException:  # Ctrl-C arrives here, in the waiting thread
            loop, task = started.get()
            if task is not None and not result.done():
                loop.call_soon_threadsafe(task.cancel)
            raise


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
