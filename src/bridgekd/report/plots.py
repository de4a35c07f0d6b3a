"""Pictures as inline SVG: they scale, print and need no network. The table beside each says the
same in words.
"""

import io

from bridgekd.report.story import ArmRow

INK, SOFT, ACCENT = "#1b1f24", "#8a939e", "#0b6bcb"
MINE = ("bridge",)


def accuracy_bars(arms: tuple[ArmRow, ...]) -> str:
    """Accuracy of every arm with its 95 % interval, as an SVG element."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "bridgekd", "font.size": 11, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 0.48 * len(arms) + 0.9))
        axes = figure.subplots()
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
        text = io.StringIO()
        figure.savefig(
            text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
        )
    _, start, rest = text.getvalue().partition("<svg")
    return start + rest
