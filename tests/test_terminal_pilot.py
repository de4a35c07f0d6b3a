from io import StringIO

import pytest
from rich.console import Console

from bridgekd.cli.render_pilot import format_gain, format_limits, print_pilot_result
from bridgekd.stages.pilot import PilotAccuracy, PilotGain, PilotMeasurements


def make_gain(low, high, n_seeds=1):
    return PilotGain(
        n_rationales=36, n_seeds=n_seeds, difference=(low + high) / 2, ci95=(low, high), p=0.2
    )


def make_measurements(n_seeds=1):
    model = PilotAccuracy(
        role="via_assistant", n_rationales=36, n_seeds=n_seeds, accuracy=0.4, ci95=(0.3, 0.5)
    )
    return PilotMeasurements(
        n_pool=4000, n_queries=40, n_rationales=36, n_eval=400,
        models=(model,), gains=(make_gain(-0.05, 0.25, n_seeds),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (make_gain(0.05, 0.25), "+15.0 points (95 % interval +5.0 to +25.0, p = 0.2)"),
        (make_gain(0.05, 0.25), "The student via the assistant is better with this number of"),
        (make_gain(-0.25, -0.05), "The student taught directly is better"),
        (make_gain(-0.05, 0.25), "The pilot does not show which one is better"),
    ],
)
def test_gain_is_stated_as_its_interval_shows_it(gain, text):
    assert text in format_gain(gain)


def test_limits_name_the_full_budget_and_single_trainings():
    one, several = (format_limits(make_measurements(n)) for n in (1, 3))
    assert "does not show the result at the full budget" in one and "trained once" in one
    assert "does not show the result at the full budget" in several
    assert "trained once" not in several


def test_every_model_is_shown_with_its_interval():
    text = StringIO()
    print_pilot_result(Console(file=text, width=200), make_measurements())
    (row,) = (line for line in text.getvalue().splitlines() if "via the assistant " in line)
    assert row.split()[4:] == ["36", "40.0%", "30.0%", "to", "50.0%"]
