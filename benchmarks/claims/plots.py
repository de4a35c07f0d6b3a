"""Two pictures: accuracy by budget, and every arm with its interval."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from claims.experiments import BUDGETS
from claims.results import Line

COLOURS = {"bridge": "#0b6bcb", "direct": "#a0522d"}


def plot_scaling(lines: Mapping[str, Line], to: Path) -> None:
    """Accuracy against the share of the pool that was asked."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    shares = [float(share.rstrip("%")) for share in BUDGETS]
    for method, colour in COLOURS.items():
        metrics = [lines[f"{method} {share}"].figures for share in BUDGETS]
        middle = [100 * t.accuracy for t in metrics]
        low, high = ([100 * t.ci95[k] for t in metrics] for k in (0, 1))
        style = "-o" if method == "bridge" else "--s"
        axes.plot(shares, middle, style, color=colour, label=method)
        axes.fill_between(shares, low, high, color=colour, alpha=0.15)
    axes.set(xscale="log", xlabel="questions asked, % of the pool", ylabel="accuracy, %")
    axes.set_xticks(shares, BUDGETS)
    axes.legend(frameon=False)
    _save(figure, to)


def plot_arms(lines: Mapping[str, Line], to: Path) -> None:
    """Every arm of an experiment, from the top down."""
    figure, axes = plt.subplots(figsize=(6.4, 0.34 * len(lines) + 0.8), layout="constrained")
    for place, line in enumerate(lines.values()):
        metrics = line.figures
        low, high = (100 * end for end in metrics.ci95)
        colour = COLOURS.get(line.title, "#57606a")
        axes.plot([low, high], [place, place], color=colour)
        axes.plot(100 * metrics.accuracy, place, "o", color=colour)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, % (95 % interval)", xlim=(0, 100))
    axes.grid(axis="x", alpha=0.3)
    _save(figure, to)


def _save(figure: Figure, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "bridgekd"}):  # same figures, same bytes
        figure.savefig(to, metadata={"Date": None})
    plt.close(figure)
