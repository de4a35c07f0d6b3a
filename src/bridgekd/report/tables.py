"""A table as plain text, shown by the page as HTML and by report.md as Markdown, so that both say
the same; and how its cells are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridgekd.core.crossed import Estimate

LEFT, RIGHT, WIDE = "l", "r", "w"  # a name, a number, a text


@dataclass(frozen=True, slots=True)
class Table:
    """`align` has a letter a column: LEFT, RIGHT or WIDE; a row's first cell is its head. `mine`
    are the rows that a reader asks about, `folded` is a table that only some want to see.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""
    mine: tuple[int, ...] = ()
    folded: bool = False


def percent(share: float, digits: int = 1) -> str:
    """0.5 as "50.0 %"."""
    return f"{100 * share:.{digits}f} %"


def percents(figure: Estimate | None) -> str:
    """A share with its interval: "50.0 % (45.1 to 54.9)"; its ends are kept in [0, 1]."""
    if figure is None:
        return ""
    low, high = (100 * min(1.0, max(0.0, end)) for end in (figure.low, figure.high))
    return f"{percent(figure.mean)} ({low:.1f} to {high:.1f})"


def ratio(figure: Estimate) -> str:
    """A ratio that may be below 0 or above 1, with its interval: "-20.0 % (-50.0 to 10.0)"."""
    return f"{percent(figure.mean)} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def numbers(figure: Estimate | None, digits: int = 1) -> str:
    """A number with its interval."""
    if figure is None:
        return ""
    return f"{figure.mean:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def points(figure: Estimate) -> str:
    """A difference, in points already, with its interval."""
    return f"{figure.mean:+.1f} ({figure.low:+.1f} to {figure.high:+.1f})"


def usd(amount: float) -> str:
    """Dollars to a hundredth of a cent."""
    return f"${amount:,.4f}"


def p_value(p: float) -> str:
    """Two digits; what is smaller than anybody needs is said to be so."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def any_filled(rows: Sequence[tuple[str, ...]], column: int) -> bool:
    """Whether some row has something in this column."""
    return any(row[column] for row in rows)
