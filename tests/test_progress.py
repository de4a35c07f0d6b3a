"""Remaining times against work whose duration is known."""

import random
import re
from io import StringIO

import pytest
from rich.console import Console

from bridgekd.cli.progress_bars import show_progress
from bridgekd.progress import ProgressTimer


def estimate_at_half(durations, n_before=0):
    """(estimate, truth) of the remaining seconds after half of the parts of these durations."""
    now, total = 0.0, n_before + len(durations)
    timer = ProgressTimer(now, n_before, total)
    half = len(durations) // 2
    for k, seconds in enumerate(durations[:half], start=1):
        now += seconds
        timer.update(now, n_before + k, total)
    return timer.estimate_remaining(now), sum(durations[half:])


@pytest.mark.parametrize("seconds", [0.001, 1.0, 600.0])
def test_even_work_has_exact_remaining_time(seconds):
    estimate, truth = estimate_at_half([seconds] * 1000)
    assert estimate == pytest.approx(truth, rel=0.02)


def test_work_of_an_earlier_process_does_not_count():
    estimate, truth = estimate_at_half([2.0] * 40, n_before=10_000)
    assert estimate == pytest.approx(truth)


def test_burst_of_saved_answers_does_not_count():
    estimate, truth = estimate_at_half([0.001] * 300 + [1.0] * 700)
    assert truth / 1.5 < estimate < truth * 1.5


def test_evaluations_during_training_count():
    estimate, truth = estimate_at_half([100.0 if k % 50 == 49 else 1.0 for k in range(400)])
    assert truth / 1.3 < estimate < truth * 1.3


def test_noisy_rates_are_averaged():
    rng = random.Random(0)
    estimate, truth = estimate_at_half([rng.expovariate(1.0) for _ in range(2000)])
    assert truth / 1.2 < estimate < truth * 1.2


def test_remaining_time_is_unknown_before_anything_is_done():
    timer = ProgressTimer(now=0.0, done=3, total=10)
    timer.update(now=5.0, done=3, total=10)
    assert timer.estimate_remaining(now=5.0) is None


def test_remaining_time_runs_down_between_updates_but_not_below_later_parts():
    timer = ProgressTimer(now=0.0, done=0, total=10)
    timer.update(now=60.0, done=6, total=10)
    assert [timer.estimate_remaining(60.0 + wait) for wait in (0, 5, 500)] == [40.0, 35.0, 30.0]


def test_timer_of_long_work_keeps_few_samples():
    timer = ProgressTimer(now=0.0, done=0, total=10**9)
    for k in range(100_000):
        timer.update(now=k * 0.5, done=k, total=10**9)
    assert len(timer._samples) < 500


class Clock:
    """A clock that only the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


def show_work(console, clock, durations):
    with show_progress(console, clock) as progress:
        progress("train student", 0, len(durations))
        for k, seconds in enumerate(durations, start=1):
            clock.now += seconds
            progress("train student", k, len(durations))


def test_plain_log_gets_lines_with_remaining_time():
    text = StringIO()
    show_work(Console(file=text, width=200), Clock(), [10.0] * 360)
    lines = text.getvalue().splitlines()
    assert lines[0] == "train student: 1 of 360 (0%), 10 s so far, about 60 min left"
    assert lines[-1] == "train student: 360 of 360 in 60 min"
    assert 30 <= len(lines) <= 60


def test_short_work_is_one_line_in_a_plain_log():
    text = StringIO()
    show_work(Console(file=text, width=200), Clock(), [0.001] * 500)
    assert text.getvalue().splitlines() == ["train student: 500 of 500 in 1 s"]


def test_bar_shows_fraction_elapsed_and_remaining_time():
    text, clock = StringIO(), Clock()
    console = Console(file=text, width=200, force_terminal=True)
    with show_progress(console, clock) as progress:
        progress("train student", 0, 100)
        clock.now = 40.0
        progress("train student", 25, 100)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).strip().splitlines()[-1]
    assert last.split()[:2] == ["train", "student"]
    assert "25/100" in last and "25%" in last and "0:00:40" in last and "2 min left" in last
