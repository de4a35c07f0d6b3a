"""The golden files of the report. `python tests/golden_files.py` writes them."""

from pathlib import Path

from bridgekd.report.page import render_report
from bridgekd.stats.answer_metrics import AnswerTraits
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.compute_metrics import ArmResult, TrainingSetStats, compute_metrics
from report_fixtures import make_report_data

FOLDER = Path(__file__).parent / "golden"
IDS = [f"q{k:02d}" for k in range(24)]


def a_result(arm, every, seed=0, ids=IDS, **fields):
    """A model that answers every n-th question wrong, from a place that depends on the seed."""
    is_correct = {id: (k + 5 * seed) % every > 0 for k, id in enumerate(ids)}
    words = {id: 10 + k % 7 + seed for k, id in enumerate(ids)}
    wrong = {id: (k % 4) / 4 for k, id in enumerate(ids)}
    traits = {
        id: AnswerTraits(30 + k % 5, k % 8 == seed, k % 6 > 0, k % 12 == 5)
        for k, id in enumerate(ids)
    }
    amounts = {"n_queries": 0, "spend_usd": 0.0, "seconds": 8.5} | fields
    budget = amounts.pop("budget", "")
    amounts |= {"title": arm.capitalize(), "answers": traits}
    return ArmResult(arm, seed, budget, is_correct, words, wrong, **amounts)


def make_metrics():
    """The figures of two seeds of two students, their start and their teacher."""
    trained = {"budget": "5%", "n_queries": 12, "spend_usd": 0.25, "is_trained": True}
    trained["training_set"] = TrainingSetStats([12, 15, 9], [0.0, 0.5])
    calibration = {"check": (Calibration(12, 0.1, 0.75, ((0.5, 0.6, 12),)),)}
    results = [a_result("teacher", 12, ids=IDS[:12])]
    for seed in range(2):
        results += [
            a_result("student_base", 2, seed),
            a_result("direct", 4, seed, **trained),
            a_result("bridge", 9, seed, calibration=calibration, **trained),
        ]
    groups = ({id: "even" if k % 2 else "odd" for k, id in enumerate(IDS)}, {IDS[0]: "2"})
    chance = ChanceBaseline(0.25, "guessing among the choices")
    return compute_metrics(
        results, groups[0], chance=chance, steps=groups[1], step_source="teacher"
    )


def make_files():
    """The text of every golden file by its name."""
    return {
        "metrics.json": make_metrics().model_dump_json(indent=1) + "\n",
        "report.md": render_report(make_report_data())[1],
    }


if __name__ == "__main__":
    for name, text in make_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
