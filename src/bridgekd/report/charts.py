"""Pictures of the arms as inline SVG, written by hand: no script, no font, no address.

The one idea: places across are percents and places down are pixels, so a picture is as wide as its
column while its letters keep their size, on a phone as in print. Colours are classes of the page's
style sheet, so that they follow its dark mode; shapes say the same as colours. The table beside
each picture has the same figures in words.
"""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from bridgekd.report.evidence import Purchase, Reliability
from bridgekd.report.results import MINE
from bridgekd.report.story import ArmRow

_ROW, _BAR = 42, 13  # pixels of a row of bars, and of a bar
_LEFT, _RIGHT = 14.0, 96.0  # percents between which points lie
_SHAPES = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    "M-5 -5h10v10h-10z",
    "M0 -6.5l6.5 11.5h-13z",
    "M0 -7l6 7l-6 7l-6 -7z",
    "M0 6.5l6.5 -11.5h-13z",
)
N_COLOURS = 6  # classes c0 to c5 of the style sheet; with the shapes 30 marks that differ


def drawing(height: float, label: str, parts: Sequence[str]) -> str:
    """An SVG element as wide as its column, said to a screen reader as `label`."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="100%" height="{height:.0f}" '
        f'role="img" aria-label="{escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line between two places, across in percent, down in pixels."""
    return f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>'


def said(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    """Text at a place."""
    place = f'x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def accuracy_bars(arms: Sequence[ArmRow]) -> str:
    """Accuracy of every arm with its 95 % interval."""
    bottom = _ROW * len(arms) + 4
    parts = [line(x, 2, x, bottom, "grid") for x in (25, 50, 75)]
    for i, arm in enumerate(arms):
        y, mine = _ROW * i + 15, arm.name.partition("@")[0] == MINE
        middle = y + 6 + _BAR / 2
        parts += [
            said(0, y, arm.title, kind="bold" if mine else ""),
            said(100, y, f"{arm.accuracy:.1%}".replace("%", " %"), "end", "bold" if mine else ""),
            f'<rect class="{"mine" if mine else "other"}" x="0" y="{y + 6}" '
            f'width="{100 * arm.accuracy:.2f}%" height="{_BAR}"/>',
            line(100 * arm.low, middle, 100 * arm.high, middle, "whisker"),
            *(
                line(100 * end, middle - 4, 100 * end, middle + 4, "whisker")
                for end in (arm.low, arm.high)
            ),
        ]
    ends = ((0, "start"), (25, "middle"), (50, "middle"), (75, "middle"), (100, "end"))
    parts += [said(x, bottom + 14, f"{x} %", anchor, "faint") for x, anchor in ends]
    told = ", ".join(f"{a.title} {100 * a.accuracy:.1f} %" for a in arms)
    return drawing(bottom + 20, f"Bars of accuracy with 95 % intervals: {told}.", parts)


def against_spend(arms: Sequence[ArmRow]) -> str:
    """Accuracy of every arm against what it spent: budgets of one arm are joined by lines."""
    most, height = max(arm.spend_usd for arm in arms) or 1.0, 300
    parts = [_level(share, height) for share in (0, 0.25, 0.5, 0.75, 1)]
    for x, share, anchor in ((_LEFT, 0, "start"), (55, 0.5, "middle"), (_RIGHT, 1, "end")):
        parts.append(said(x, height + 34, f"${share * most:.3g}", anchor, "faint"))
    for place, row in enumerate(series(arms)):
        marks = sorted(((a.spend_usd / most, a) for a in row), key=lambda mark: mark[0])
        at = [(_across(share), _down(a.accuracy, height)) for share, a in marks]
        colour = f"c{place % N_COLOURS}"
        parts += [line(*one, *other, f"joined {colour}") for one, other in pairwise(at)]
        for (x, y), (_, arm) in zip(at, marks, strict=True):
            low, high = _down(arm.low, height), _down(arm.high, height)
            told = f"{arm.title}: {100 * arm.accuracy:.1f} % for ${arm.spend_usd:.4f}"
            parts += [line(x, low, x, high, f"upright {colour}"), mark(place, x, y, told)]
    label = "Accuracy of every arm against the dollars that it took alone, with 95 % intervals."
    return drawing(height + 42, f"{label} The tables below hold the same figures.", parts)


def series(arms: Sequence[ArmRow]) -> list[list[ArmRow]]:
    """Arms of several budgets together."""
    found: dict[str, list[ArmRow]] = {}
    for arm in arms:
        found.setdefault(arm.name.partition("@")[0], []).append(arm)
    return list(found.values())


def mark(place: int, x: float, y: float, told: str = "") -> str:
    """The mark of one series, of its own shape and colour."""
    title = f"<title>{escape(told)}</title>" if told else ""
    shape, colour = _SHAPES[place % len(_SHAPES)], f"c{place % N_COLOURS}"
    return (
        f'<svg x="{x:.2f}%" y="{y:.1f}" overflow="visible" width="1" height="1">'
        f'<path class="mark {colour}" d="{shape}">{title}</path></svg>'
    )


def legend(place: int) -> str:
    """The same mark for a list."""
    return (
        '<svg class="sign" viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">'
        f'<path class="mark c{place % N_COLOURS}" d="{_SHAPES[place % len(_SHAPES)]}"/></svg>'
    )


def money_bars(purchases: Sequence[Purchase]) -> str:
    """Dollars of every purchase: filled is what kept rationales cost, hollow what dropped ones did,
    grey what measuring the teacher took.
    """
    most, parts, told = max(p.spend_usd for p in purchases) or 1.0, [], []
    for i, p in enumerate(purchases):
        y, width, kept = _ROW * i + 15, 99 * p.spend_usd / most, 99 * p.usd_kept / most
        n_dropped = sum(p.dropped.values())
        came = "measuring" if p.measures else f"kept {p.n_kept}, dropped {n_dropped}"
        told.append(f"{p.title}: ${p.spend_usd:.4f}, {came}")
        parts += [said(0, y, p.title), said(100, y, f"${p.spend_usd:.4f}, {came}", "end", "faint")]
        bar = f'y="{y + 6}" height="{_BAR}"'
        if p.measures:
            parts.append(f'<rect class="other" x="0" {bar} width="{width:.2f}%"/>')
        else:
            parts += [
                f'<rect class="hollow" x="0.3%" {bar} width="{width:.2f}%"/>',
                f'<rect class="mine" x="0.3%" {bar} width="{kept:.2f}%"/>',
            ]
    label = f"Bars of dollars, what kept rationales cost filled: {'; '.join(told)}."
    return drawing(_ROW * len(purchases) + 4, label, parts)


def reliability(found: Reliability) -> str:
    """Share right against confidence, bin by bin; on the dashed line it means what it says. A dot's
    area goes with its rows.
    """
    height, most = 280, max(n for _, _, n in found.bins)
    parts = [_level(share, height) for share in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(line(_LEFT, _down(0, height), _RIGHT, _down(1, height), "dashed"))
    at = [(_across(conf), _down(right, height), n) for conf, right, n in found.bins]
    parts += [line(*one[:2], *other[:2], "joined c0") for one, other in pairwise(at)]
    for x, y, n in at:
        radius = 3 + 6 * (n / most) ** 0.5
        parts.append(f'<circle class="mark c0" cx="{x:.2f}%" cy="{y:.1f}" r="{radius:.1f}"/>')
    for conf, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        parts.append(said(_across(conf), height + 34, f"{conf:g}", anchor, "faint"))
    label = f"Share right against confidence in {len(found.bins)} bins; the table has the figures."
    return drawing(height + 42, label, parts)


def _level(share: float, height: float) -> str:
    """A line across at a share, with its percent."""
    y = _down(share, height)
    return line(_LEFT, y, 100, y, "grid") + said(0, y + 4, f"{100 * share:.0f} %", kind="faint")


def _down(share: float, height: float) -> float:
    return 12 + (1 - share) * height


def _across(share: float) -> float:
    return _LEFT + share * (_RIGHT - _LEFT)
