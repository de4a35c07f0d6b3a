"""Pictures as inline SVG: they scale, print and need no network. The table beside each says the
same in words.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridgekd.report.story import ArmRow, Reliability

INK, SOFT, ACCENT = "#1b1f24", "#8a939e", "#0b6bcb"
MINE = ("bridge",)


def accuracy_bars(arms: tuple[ArmRow, ...]) -> str:
    """Accuracy of every arm with its 95 % interval, as an SVG element."""
    with _drawn(8, 0.48 * len(arms) + 0.9) as (axes, text):
        for i, arm in enumerate(reversed(arms)):
            colour = ACCENT if arm.name in MINE else SOFT
            axes.barh(i, arm.accuracy, color=colour, height=0.6)
            axes.plot([arm.low, arm.high], [i, i], color=INK, linewidth=1.6, solid_capstyle="butt")
            axes.text(min(arm.high + 0.015, 1.02), i, f"{arm.accuracy:.1%}", va="center", color=INK)
        axes.set_yticks(range(len(arms)), [arm.title for arm in reversed(arms)])
        axes.set_xlim(0, 1.1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False, colors=INK)
        axes.grid(axis="x", color="#e3e6ea", linewidth=0.8)
        axes.set_axisbelow(True)
    return _svg(text)


def reliability(found: Reliability) -> str:
    """Share right against confidence, bin by bin, as an SVG element; on the line it means what it
    says. A dot's area goes with its rows.
    """
    with _drawn(4.6, 4.2) as (axes, text):
        said, true, sizes = (list(column) for column in zip(*found.bins, strict=True))
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1.2, linestyle="--")
        axes.plot(said, true, color=ACCENT, linewidth=1.2)
        axes.scatter(said, true, s=[20 + 180 * n / max(sizes) for n in sizes], color=ACCENT)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("confidence")
        axes.set_ylabel("share right")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    return _svg(text)


def against_spend(arms: tuple[ArmRow, ...]) -> str:
    """Accuracy of every arm against what it spent, as an SVG element: arms of several budgets are
    lines, the others dots; 95 % intervals upright.
    """
    by_name: dict[str, list[ArmRow]] = {}
    for arm in arms:
        by_name.setdefault(arm.name.partition("@")[0], []).append(arm)
    with _drawn(8, 4.8) as (axes, text):
        for i, (name, row) in enumerate(by_name.items()):
            row = sorted(row, key=lambda a: a.spend_usd)
            colour = ACCENT if name in MINE else f"C{i % 10}"
            spend, share = [a.spend_usd for a in row], [a.accuracy for a in row]
            errors = [[a.accuracy - a.low for a in row], [a.high - a.accuracy for a in row]]
            axes.errorbar(
                spend, share, yerr=errors, color=colour, marker="os^Dv"[i % 5], capsize=3,
                linewidth=2.4 if name in MINE else 1.2, label=row[0].title.rpartition(", ")[0]
                if "@" in row[0].name else row[0].title,
            )  # fmt: skip
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel("dollars that an arm took alone")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(text)


@contextmanager
def _drawn(width: float, height: float) -> Iterator[tuple[Any, io.StringIO]]:
    """Axes to draw on, and the text that holds the picture when the block ends."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "bridgekd", "font.size": 11, "svg.fonttype": "none"}):
        figure, text = Figure(figsize=(width, height)), io.StringIO()
        yield figure.subplots(), text
        figure.savefig(
            text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
        )


def _svg(text: io.StringIO) -> str:
    _, start, rest = text.getvalue().partition("<svg")
    return start + rest
