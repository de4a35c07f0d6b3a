"""Tables as plain text: the page renders them as HTML, report.md as Markdown, with equal cells."""

import unicodedata
from dataclasses import dataclass

from bridgekd.stats.metrics import Interval, MeanEstimate

LEFT, RIGHT, WIDE = "l", "r", "w"  # a name, a number, a text
MAX_TEXT_LENGTH = 160
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first cell of each row is the header of the row.

    `align` has one letter for each column: LEFT, RIGHT or WIDE. `highlighted` are row indexes.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""
    highlighted: tuple[int, ...] = ()


def format_percent(fraction: float, digits: int = 1) -> str:
    """
    >>> format_percent(0.5)
    '50.0 %'
    """
    return f"{100 * fraction:.{digits}f} %"


def format_interval(ci95: Interval) -> str:
    """
    >>> format_interval((0.451, 0.549))
    '45.1 % to 54.9 %'
    """
    return " to ".join(map(format_percent, ci95))


def format_percent_interval(fraction: float, ci95: Interval) -> str:
    """Return a fraction with its interval, which is clipped to [0, 1].

    >>> format_percent_interval(0.5, (0.451, 0.549))
    '50.0 % (45.1 to 54.9)'
    """
    low, high = (100 * min(1.0, max(0.0, end)) for end in ci95)
    return f"{format_percent(fraction)} ({low:.1f} to {high:.1f})"


def format_mean_interval(estimate: MeanEstimate) -> str:
    """
    >>> format_mean_interval(MeanEstimate(mean=40, ci95=(38, 42.25)))
    '40.0 (38.0 to 42.2)'
    """
    low, high = estimate.ci95
    return f"{estimate.mean:,.1f} ({low:,.1f} to {high:,.1f})"


def format_points_interval(difference: float, ci95: Interval) -> str:
    """Return a difference of fractions in percentage points with its interval.

    >>> format_points_interval(0.1, (-0.05, 0.25))
    '+10.0 (-5.0 to +25.0)'
    """
    low, high = (100 * end for end in ci95)
    return f"{100 * difference:+.1f} ({low:+.1f} to {high:+.1f})"


def format_usd(amount: float) -> str:
    """
    >>> format_usd(1234.5)
    '$1,234.5000'
    """
    return f"${amount:,.4f}"


def to_single_line(text: str) -> str:
    """Return `text` on one line of at most MAX_TEXT_LENGTH characters. The result is not escaped.

    It has no control characters, and no characters that change the direction of later text.
    """
    kept = (
        " " if unicodedata.category(c) in ("Cc", "Cs") or c in _BIDI_CONTROLS else c
        for c in text[: 8 * MAX_TEXT_LENGTH]
    )
    line = " ".join("".join(kept).split())
    is_cut = len(line) > MAX_TEXT_LENGTH or len(text) > 8 * MAX_TEXT_LENGTH
    return line[: MAX_TEXT_LENGTH - 1].rstrip() + "…" if is_cut else line


def render_markdown(table: Table) -> str:
    """Return the table as GitHub Markdown, with its caption above and its note below."""
    rules = tuple("---:" if letter == RIGHT else "---" for letter in table.align)
    head, *body = (tuple(map(escape_cell, row)) for row in (table.columns, *table.rows))
    lines = "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *body))
    caption = f"**{escape_cell(table.caption)}**" if table.caption else ""
    return "\n\n".join(part for part in (caption, lines, escape_cell(table.note)) if part)


def escape_cell(text: str) -> str:
    """Return `text` on one line, escaped for a cell of a Markdown table or for a paragraph.

    >>> print(escape_cell("a|b"))
    a\\|b
    """
    line = " ".join(text.split())
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        line = line.replace(mark, f"\\{mark}")
    return line
