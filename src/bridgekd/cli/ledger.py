"""`bridgekd ledger`: what was paid for; out to a file, in from one, and a proof of it all."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bridgekd.cli import render_ledger, render_plan
from bridgekd.cli.documents import SpendDocument, print_document
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import JsonFlag, out
from bridgekd.errors import InputError
from bridgekd.ledger import verify
from bridgekd.ledger.export import export_ledger as export_to
from bridgekd.ledger.import_answers import import_answers
from bridgekd.ledger.spend import GROUPS, check_exists, sum_rows, sum_spend
from bridgekd.recipe import Price

DEFAULT = Path("ledger.db")
HELP = "Every paid call: what was spent, export, import, proof."

app = typer.Typer(help=HELP)

LedgerPath = Annotated[
    Path | None,
    typer.Option("--ledger", metavar="FILE", help=f"The ledger; if left out, {DEFAULT} here."),
]
GroupBy = Annotated[
    str, typer.Option(help=f"What to add up by, with commas between: {', '.join(GROUPS)}.")
]


@app.callback(invoke_without_command=True, epilog="Example: bridgekd ledger --by run,day")
def show_default(
    context: typer.Context,
    ledger: LedgerPath = None,
    by: GroupBy = "run,model,state",
    as_json: JsonFlag = False,
) -> None:
    """Every paid call: what was spent, export, import, proof. Alone it shows what was spent."""
    context.obj = ledger or DEFAULT
    if context.invoked_subcommand is None:
        _print_spend(context.obj, by, as_json=as_json)


@app.command("show", epilog="Example: bridgekd ledger show --by model,day")
def show_spend(
    context: typer.Context,
    ledger: LedgerPath = None,
    by: GroupBy = "run,model,state",
    as_json: JsonFlag = False,
) -> None:
    """Show what was spent. Reads only, also while a run is buying."""
    _print_spend(ledger or context.obj, by, as_json=as_json)


@app.command("export", epilog="Example: bridgekd ledger export --to answers.jsonl")
def export_ledger_command(
    context: typer.Context,
    to: Annotated[Path, typer.Option(metavar="FILE", help="A .csv (no texts) or .jsonl file.")],
    ledger: LedgerPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write every attempt to a table (CSV), or with all its texts to JSON lines, as a backup."""
    with show_progress(out) as progress:
        n_attempts = export_to(ledger or context.obj, to, force=force, progress=progress)
    out.print(f"Wrote {n_attempts:,} attempts to {to}", soft_wrap=True)


@app.command("import", epilog="Example: bridgekd ledger import answers.jsonl --run elsewhere")
def import_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSON lines: an export, or requests and responses.")],
    ledger: LedgerPath = None,
    run: Annotated[
        str | None, typer.Option(help="The run they belong to; if left out, as the file says.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT,OUTPUT",
            help="$ per million tokens of answers that name no price or cost; or: published.",
        ),
    ] = None,
) -> None:
    """Bring in answers that were paid for elsewhere, so that no run buys them again."""
    into, default_price = ledger or context.obj, _price(price)
    with show_progress(out) as progress:
        done = import_answers(
            file,
            into,
            run=run,
            default_price=default_price,
            progress=progress,
            on_wait=render_plan.make_printer(out),
        )
    out.print(
        f"{into}: {done.n_new:,} imported, {done.n_known:,} already there, "
        f"{done.n_skipped:,} skipped (attempts without an answer)",
        soft_wrap=True,
    )


@app.command("verify", epilog="Example: bridgekd ledger verify")
def verify_command(context: typer.Context, ledger: LedgerPath = None) -> None:
    """Prove that every attempt says what its texts say, and that all add up."""
    path = ledger or context.obj
    with show_progress(out) as progress:
        proof = verify.verify(path, progress)
    render_ledger.print_issues(out, proof.warnings)
    render_ledger.print_issues(out, proof.errors)
    if n := len(proof.errors):
        raise InputError(
            f"{path}: {n} finding{'s' * (n != 1)}; it was changed by something else than "
            f"bridgekd, or its disk is at fault. Keep the file, put a copy back (a backup, or "
            f"`bridgekd ledger import` of an export) and run this command again."
        )
    out.print(f"{path}: all {proof.n_attempts:,} attempts verified", soft_wrap=True)


def _price(written: str | None) -> Price | Literal["published"] | None:
    if written is None:
        return None
    if written == "published":
        return "published"
    try:
        given, returned = (float(part) for part in written.split(","))
        return Price(input=given, output=returned)
    except ValueError as exc:
        raise InputError(
            f"--price {written!r}: give dollars per million tokens as INPUT,OUTPUT, or published"
        ) from exc


def _print_spend(path: Path, by: str, *, as_json: bool) -> None:
    names = tuple(dict.fromkeys(name.strip() for name in by.split(",")))
    if unknown := [name for name in names if name not in GROUPS]:
        raise InputError(f"--by {unknown[0]!r} is unknown; known: {', '.join(GROUPS)}")
    check_exists(path)
    rows = sum_spend(path, names)
    spend = SpendDocument(path=str(path), by=names, rows=rows, total=sum_rows(rows))
    if as_json:
        print_document(spend)
    else:
        render_ledger.print_spend(out, spend)
