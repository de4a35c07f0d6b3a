"""Plots of accuracy and spend as inline SVG, without scripts, fonts or links.

Horizontal positions are percentages and vertical positions are pixels. So a plot is as wide as its
column, and its text keeps its size on a phone and on paper. Colors are classes of the page's style
sheet, so they follow its dark mode. Shapes make the same distinctions as colors.
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from bridgekd.report.report_data import PurchaseSummary
from bridgekd.report.tables import format_percent
from bridgekd.stats.metrics import ArmMetrics

_ROW_HEIGHT, _BAR_HEIGHT = 42, 13
_LEFT, _RIGHT = 14.0, 96.0  # all points are between these percentages
_PLOT_HEIGHT = 300
_SHAPES = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    "M-5 -5h10v10h-10z",
    "M0 -6.5l6.5 11.5h-13z",
    "M0 -7l6 7l-6 7l-6 -7z",
    "M0 6.5l6.5 -11.5h-13z",
)
N_COLORS = 6  # classes c0 to c5 of the style sheet; with the shapes 30 different markers


def render_svg(height: float, label: str, parts: Sequence[str]) -> str:
    """Return an SVG element as wide as its column. Screen readers read `label`."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="100%" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def draw_line(x1: float, y1: float, x2: float, y2: float, css_class: str) -> str:
    """Return a line. x is in percent, y in pixels."""
    ends = f'x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"'
    return f'<line class="{css_class}" {ends}/>'


def draw_text(x: float, y: float, text: str, anchor: str = "start", css_class: str = "") -> str:
    """Return a text. `anchor` is start, middle or end."""
    position = f'x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{css_class}" {position}>{escape(text)}</text>'


def plot_accuracy(arms: Sequence[ArmMetrics], lead: str | None) -> str:
    """Return a bar for each arm with its 95 % interval; the arm `lead` is highlighted."""
    bottom = _ROW_HEIGHT * len(arms) + 4
    parts = [draw_line(x, 2, x, bottom, "grid") for x in (25, 50, 75)]
    for i, arm in enumerate(arms):
        parts += _draw_accuracy_bar(arm, _ROW_HEIGHT * i + 15, is_highlighted=arm.arm == lead)
    ticks = ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"), (100, "end"))
    parts += [draw_text(x, bottom + 14, f"{x} %", anchor, "faint") for x, anchor in ticks]
    values = ", ".join(f"{a.title} {format_percent(a.accuracy)}" for a in arms)
    return render_svg(bottom + 20, f"Bars of accuracy with 95 % intervals: {values}.", parts)


def _draw_accuracy_bar(arm: ArmMetrics, y: float, *, is_highlighted: bool) -> list[str]:
    middle = y + 6 + _BAR_HEIGHT / 2
    bar_class, text_class = ("own", "bold") if is_highlighted else ("other", "")
    low, high = (100 * end for end in arm.ci95)
    return [
        draw_text(0, y, arm.title, css_class=text_class),
        draw_text(100, y, format_percent(arm.accuracy), "end", text_class),
        _draw_bar(0, y, 100 * arm.accuracy, bar_class),
        draw_line(low, middle, high, middle, "whisker"),
        *(draw_line(end, middle - 4, end, middle + 4, "whisker") for end in (low, high)),
    ]


def _draw_bar(x: float, y: float, width: float, css_class: str) -> str:
    return (
        f'<rect class="{css_class}" x="{x}%" y="{y + 6}" width="{width:.2f}%" '
        f'height="{_BAR_HEIGHT}"/>'
    )


def plot_accuracy_vs_spend(arms: Sequence[ArmMetrics]) -> str:
    """Return the accuracy of every arm by its spend. A line joins the budgets of one arm."""
    max_usd, height = max(arm.spend_usd for arm in arms) or 1.0, _PLOT_HEIGHT
    parts = []
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        y = _scale_y(fraction)
        parts.append(draw_line(_LEFT, y, 100, y, "grid"))
        parts.append(draw_text(0, y + 4, f"{100 * fraction:.0f} %", css_class="faint"))
    for x, fraction, anchor in ((_LEFT, 0, "start"), (55, 0.5, "middle"), (_RIGHT, 1, "end")):
        parts.append(draw_text(x, height + 34, f"${fraction * max_usd:.3g}", anchor, "faint"))
    for i, series in enumerate(group_series(arms)):
        series = sorted(series, key=lambda arm: arm.spend_usd)
        points = [
            (_LEFT + arm.spend_usd / max_usd * (_RIGHT - _LEFT), _scale_y(arm.accuracy))
            for arm in series
        ]
        color = f"c{i % N_COLORS}"
        parts += [draw_line(*a, *b, f"joined {color}") for a, b in pairwise(points)]
        for (x, y), arm in zip(points, series, strict=True):
            low, high = map(_scale_y, arm.ci95)
            title = f"{arm.title}: {format_percent(arm.accuracy)} for ${arm.spend_usd:.4f}"
            parts += [
                draw_line(x, low, x, high, f"upright {color}"),
                f'<svg x="{x:.2f}%" y="{y:.1f}" overflow="visible" width="1" height="1">'
                f"{_draw_marker(i, f'<title>{escape(title)}</title>')}</svg>",
            ]
    label = "Accuracy of every arm by its spend in dollars, with 95 % intervals."
    return render_svg(height + 42, f"{label} The tables below have the same values.", parts)


def group_series(arms: Sequence[ArmMetrics]) -> list[list[ArmMetrics]]:
    """Return one list for each arm, with one entry for each of its budgets."""
    by_arm: dict[str, list[ArmMetrics]] = {}
    for arm in arms:
        by_arm.setdefault(arm.arm, []).append(arm)
    return list(by_arm.values())


def draw_legend_marker(series: int) -> str:
    """Return the marker of a series as an SVG element for a legend."""
    return (
        '<svg class="sign" viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">'
        f"{_draw_marker(series)}</svg>"
    )


def _draw_marker(series: int, content: str = "") -> str:
    shape = _SHAPES[series % len(_SHAPES)]
    return f'<path class="mark c{series % N_COLORS}" d="{shape}">{content}</path>'


def plot_spend(purchases: Sequence[PurchaseSummary]) -> str:
    """Return a bar of dollars for each purchase.

    The bar is filled for kept rationales, hollow for dropped rationales, and gray for the
    evaluation of the teacher.
    """
    max_usd, parts, texts = max(p.spend_usd for p in purchases) or 1.0, [], []
    for i, p in enumerate(purchases):
        y, width, kept = _ROW_HEIGHT * i + 15, 99 * p.spend_usd / max_usd, 99 * p.kept_usd / max_usd
        n_dropped = sum((p.dropped or {}).values())
        result = "evaluation" if p.is_eval else f"{p.n_kept} kept, {n_dropped} dropped"
        text = f"${p.spend_usd:.4f}, {result}"
        texts.append(f"{p.title}: {text}")
        parts += [draw_text(0, y, p.title), draw_text(100, y, text, "end", "faint")]
        bars = [("other", width)] if p.is_eval else [("hollow", width), ("own", kept)]
        parts += [_draw_bar(0.3, y, percent, css_class) for css_class, percent in bars]
    label = f"Bars of dollars, filled for kept rationales: {'; '.join(texts)}."
    return render_svg(_ROW_HEIGHT * len(purchases) + 4, label, parts)


def _scale_y(fraction: float) -> float:
    return 12 + (1 - fraction) * _PLOT_HEIGHT
