"""`bridgekd ledger`: what was paid for, and bringing it out, in and to proof."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bridgekd import terminal_ledger
from bridgekd.edges.ledger_views import GROUPS, refuse_missing, spend
from bridgekd.errors import BadInput

DEFAULT = Path("ledger.db")

app = typer.Typer(help="Every paid call: what was spent, export, import, proof.")
out = Console()

LedgerPath = Annotated[
    Path | None,
    typer.Option(
        "--ledger", metavar="FILE", help=f"The ledger; {DEFAULT} in this folder if left out."
    ),
]
By = Annotated[
    str,
    typer.Option(help=f"What to add up by, with commas between: {', '.join(GROUPS)}."),
]


@app.callback(
    invoke_without_command=True,
    epilog="Example: bridgekd ledger --by run,day",
)
def ledger(context: typer.Context, ledger: LedgerPath = None, by: By = "run,model,state") -> None:
    """Every paid call: what was spent, export, import, proof. Alone it shows what was spent."""
    context.obj = ledger
    if context.invoked_subcommand is None:
        _show(ledger or DEFAULT, by)


@app.command(epilog="Example: bridgekd ledger show --by model,day")
def show(context: typer.Context, ledger: LedgerPath = None, by: By = "run,model,state") -> None:
    """Show what was spent. Reads only, also while a run is buying."""
    _show(ledger or context.obj or DEFAULT, by)


def _show(path: Path, by: str) -> None:
    names = list(dict.fromkeys(name.strip() for name in by.split(",")))
    if unknown := [name for name in names if name not in GROUPS]:
        raise BadInput(f"--by {unknown[0]!r} is unknown; known: {', '.join(GROUPS)}")
    refuse_missing(path)
    terminal_ledger.print_spend(out, path, names, spend(path, names))
