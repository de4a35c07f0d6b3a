"""The streams of the command line, and the options and tables that several commands share."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Escape sequences of a terminal (CSI, OSC), then control characters, except tab and line break, and
# characters that reverse the direction of the text after them.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[P^_X][^\x1b]*(?:\x1b\\)?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)


class PlainConsole(Console):
    """A console on which text is text, also in tables.

    Text of a server, a file or a recipe may have brackets that rich reads as styles, and controls
    that a terminal executes. Styles are arguments here, and controls are removed.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text with the settings of rich, without control characters."""
        return super().render_str(strip_controls(text), **settings)


def strip_controls(text: str) -> str:
    """Return a text without escape sequences and control characters, except tab and line break.

    >>> strip_controls("\\x1b]0;title\\x07a\\x1b[2Jb\\n")
    'ab\\n'
    """
    return _CONTROLS.sub("", text)


out = PlainConsole()
err = PlainConsole(stderr=True)

RunName = Annotated[str, typer.Argument(help="The run.", metavar="RUN")]
StorePath = Annotated[Path, typer.Option("--store", help="The folder of the store.")]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout, and notes to stderr.")
]

MIN_WIDTH = 200  # for a file or a pipe, which has no width of its own


def make_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints text without colors and without added line breaks."""
    return lambda text: console.print(text, highlight=False, soft_wrap=True)


def make_table(title: str, columns: Sequence[str], right: Collection[str] = ()) -> Table:
    """Return a table without lines. The columns in `right` are right-aligned and never folded."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in columns:
        if name in right:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table; in a file or a pipe with enough width for its texts."""
    if not console.is_terminal:
        console = PlainConsole(file=console.file, width=MIN_WIDTH)
    console.print(table)
