"""Progress in the terminal: a bar per piece of work, with its fraction, elapsed and remaining time.

A file or a pipe gets lines with the same numbers.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from bridgekd.cli.render_plan import format_seconds
from bridgekd.cli.terminal import make_printer, strip_controls
from bridgekd.progress import Progress, ProgressTimer

FIRST_LINE_S = 10.0  # faster work prints one line
MIN_INTERVAL_S = 30.0
_N_LINES = 50  # approximate maximum per piece of work

Clock = Callable[[], float]


@contextmanager
def show_progress(console: Console, clock: Clock = time.monotonic) -> Iterator[Progress]:
    """Yield a progress callable that draws bars, or prints lines if there is no terminal."""
    if not console.is_terminal:
        yield _LinePrinter(console, clock)
        return
    bars = _BarDrawer(console, clock)
    try:
        yield bars
    finally:
        bars.stop()


class _RemainingColumn(ProgressColumn):
    """The remaining time of a task; empty before it is known and after the end."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        left = task.fields["timer"].estimate_remaining(self._clock())
        return Text(
            "" if left is None or task.finished else f"{format_seconds(left)} left", style="cyan"
        )


class _BarDrawer:
    """Draws a bar per piece of work. A finished bar stays."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._clock = clock
        self._bars = Bars(
            TextColumn("{task.description:<26}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            _RemainingColumn(clock),
            console=console,
            get_time=clock,
        )
        self._tasks: dict[str, tuple[TaskID, ProgressTimer]] = {}

    def __call__(self, what: str, done: int, total: int, /) -> None:
        now = self._clock()
        if what not in self._tasks:
            self._bars.start()
            timer = ProgressTimer(now, done, total)
            self._tasks[what] = (
                self._bars.add_task(strip_controls(what), total=total, timer=timer),
                timer,
            )
        task, timer = self._tasks[what]
        timer.update(now, done, total)
        self._bars.update(task, completed=done, total=total)
        if done >= total:
            del self._tasks[what]

    def stop(self) -> None:
        if self._bars.tasks:
            self._bars.stop()


class _LinePrinter:
    """Prints a line when a piece of work ends, and more lines during long work."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._print, self._clock = make_printer(console), clock
        self._timers: dict[str, ProgressTimer] = {}
        self._next_line_at: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, /) -> None:
        now = self._clock()
        if what not in self._timers:
            self._timers[what] = ProgressTimer(now, done, total)
            self._next_line_at[what] = now + FIRST_LINE_S
        timer = self._timers[what]
        timer.update(now, done, total)
        elapsed, left = now - timer.started_at, timer.estimate_remaining(now)
        if done >= total:
            del self._timers[what]
            self._print(f"{what}: {done:,} of {total:,} in {format_seconds(elapsed)}")
        elif now >= self._next_line_at[what] and left is not None:
            self._next_line_at[what] = now + max(MIN_INTERVAL_S, (elapsed + left) / _N_LINES)
            fraction = f"{done:,} of {total:,} ({done / total:.0%})"
            times = f"{format_seconds(elapsed)} so far, about {format_seconds(left)} left"
            self._print(f"{what}: {fraction}, {times}")
