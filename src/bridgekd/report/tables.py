"""A table as plain text, shown by the page as HTML and by report.md as Markdown, so that both say
the same; and how its cells are written.
"""

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


def render_markdown(table: Table) -> str:
    """Return the table as GitHub's Markdown, with its caption above and its note below."""
    rules = tuple("---:" if letter == RIGHT else "---" for letter in table.align)
    head = tuple(escape_cell(column) for column in table.columns)
    body = tuple(tuple(escape_cell(cell) for cell in row) for row in table.rows)
    lines = "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *body))
    caption = f"**{table.caption}**" if table.caption else ""
    return "\n\n".join(part for part in (caption, lines, table.note) if part)


def escape_cell(text: str) -> str:
    """Return `text` on one line, so that it stays in its Markdown cell and is no markup."""
    line = " ".join(text.split())
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        line = line.replace(mark, f"\\{mark}")
    return line
