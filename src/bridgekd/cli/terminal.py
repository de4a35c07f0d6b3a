"""The streams of the command line, and the options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

RunName = Annotated[str, typer.Argument(help="The run.", metavar="RUN")]
StorePath = Annotated[Path, typer.Option("--store", help="The folder of the store.")]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout, and notes to stderr.")
]

MIN_WIDTH = 200  # for a file or a pipe, which has no width of its own


def widen(console: Console) -> Console:
    """Return a console for a table that is not folded in a file or a pipe."""
    return console if console.is_terminal else Console(file=console.file, width=MIN_WIDTH)
