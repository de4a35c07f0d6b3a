"""The streams of the command line, and the options and tables that several commands share."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

out = Console()
err = Console(stderr=True)

RunName = Annotated[str, typer.Argument(help="The run.", metavar="RUN")]
StorePath = Annotated[Path, typer.Option("--store", help="The folder of the store.")]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout, and notes to stderr.")
]

MIN_WIDTH = 200  # for a file or a pipe, which has no width of its own


def make_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints text literally: server names and paths are no markup."""
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)


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
        console = Console(file=console.file, width=MIN_WIDTH)
    console.print(table)
