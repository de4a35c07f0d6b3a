"""Results in a terminal of 80 columns: wrapped, never cut."""

import io

from rich.console import Console

from bridgekd.cli.render_metrics import print_metrics
from bridgekd.stats.answer_metrics import AnswerTraits
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.compute_metrics import ArmResult, compute_metrics


def a_cell(arm, every, *, trained=True):
    """An arm that answers all but each `every`-th of 120 questions right."""
    ids = [f"q{k}" for k in range(120)]
    right = {id: k % every > 0 for k, id in enumerate(ids)}
    return ArmResult(
        arm=arm, seed=0, budget="5%" if trained else "", is_correct=right,
        words=dict.fromkeys(ids, 12), wrong_steps=dict.fromkeys(ids, 0.5),
        answers={id: AnswerTraits(80, is_repetitive=k % 10 == 0) for k, id in enumerate(ids)},
        n_queries=200 * trained, spend_usd=0.1595 * trained, seconds=10.0, is_trained=trained,
    )  # fmt: skip


def test_terminal_of_80_columns_shows_every_figure():
    cells = [
        a_cell("student_instructed", 2, trained=False),
        a_cell("direct", 3),
        a_cell("bridge", 9),
    ]
    chance = ChanceBaseline(0.25, "guessing among the choices")
    metrics = compute_metrics(cells, dict.fromkeys(cells[0].is_correct, "sums"), chance=chance)
    page = io.StringIO()
    print_metrics(Console(file=page, width=80), metrics, "sandbox")
    text = page.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert "+21.7" in text and "p (Holm)" in text and "$ per point" in text
    assert "80.0" in text and "repetitive" in text and "10.0%" in text
