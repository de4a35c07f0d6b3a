"""`bridgekd ledger`: the paid requests as a table, their export and import, and a verification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from bridgekd.cli.documents import SpendDocument, print_document
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import JsonFlag, make_printer, make_table, out, print_table
from bridgekd.cost.request_cost import format_microusd
from bridgekd.errors import InputError
from bridgekd.ledger.export import export_ledger
from bridgekd.ledger.import_answers import import_answers
from bridgekd.ledger.spend import GROUPS, SpendRow, check_exists, sum_rows, sum_spend
from bridgekd.ledger.verify import Issue, verify
from bridgekd.messages import format_value
from bridgekd.recipe import Price

DEFAULT = Path("ledger.db")
HELP = "Inspect, export, import and verify the ledger of paid requests."

app = typer.Typer(help=HELP)

LedgerPath = Annotated[
    Path | None, typer.Option("--ledger", metavar="FILE", help=f"The ledger. Default: {DEFAULT}.")
]
GroupBy = Annotated[
    str, typer.Option(help=f"Columns to group by, separated by commas: {', '.join(GROUPS)}.")
]


@app.callback(invoke_without_command=True, epilog="Example: bridgekd ledger --by run,day")
def show_default(
    context: typer.Context,
    ledger: LedgerPath = None,
    by: GroupBy = "run,model,state",
    as_json: JsonFlag = False,
) -> None:
    """Inspect, export, import and verify the ledger of paid requests. Default: show the spend."""
    context.obj = ledger or DEFAULT
    if context.invoked_subcommand is None:
        show_spend(context, ledger, by, as_json)


@app.command("show", epilog="Example: bridgekd ledger show --by model,day")
def show_spend(
    context: typer.Context,
    ledger: LedgerPath = None,
    by: GroupBy = "run,model,state",
    as_json: JsonFlag = False,
) -> None:
    """Show the spend. This only reads, and works during a run."""
    path = ledger or context.obj
    groups = tuple(dict.fromkeys(name.strip() for name in by.split(",")))
    if unknown := [name for name in groups if name not in GROUPS]:
        raise InputError(
            f"--by has the unknown column {format_value(unknown[0])}. Known: {', '.join(GROUPS)}."
        )
    check_exists(path)
    rows = sum_spend(path, groups)
    spend = SpendDocument(path=str(path), by=groups, rows=rows, total=sum_rows(rows))
    if as_json:
        print_document(spend)
    else:
        _print_spend(out, spend)


@app.command("export", epilog="Example: bridgekd ledger export --to answers.jsonl")
def export_ledger_command(
    context: typer.Context,
    to: Annotated[Path, typer.Option(metavar="FILE", help="A .csv or .jsonl file.")],
    ledger: LedgerPath = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write every attempt to a CSV file (without texts) or a JSON lines file (a full backup)."""
    with show_progress(out) as progress:
        n_attempts = export_ledger(ledger or context.obj, to, force=force, progress=progress)
    out.print(f"Wrote {n_attempts:,} attempts to {to}", soft_wrap=True)


@app.command("import", epilog="Example: bridgekd ledger import answers.jsonl --run imported")
def import_command(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A JSON lines file: an export, or requests with responses.")
    ],
    ledger: LedgerPath = None,
    run: Annotated[
        str | None, typer.Option(help="The run of the answers. Default: the run in the file.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT,OUTPUT",
            help="Dollars per million tokens, or `published`, for answers without price and cost.",
        ),
    ] = None,
) -> None:
    """Import answers that were paid for outside bridgekd. No run buys them again."""
    path = ledger or context.obj
    with show_progress(out) as progress:
        result = import_answers(
            file,
            path,
            run=run,
            default_price=_parse_price(price),
            progress=progress,
            on_wait=make_printer(out),
        )
    out.print(
        f"{path}: {result.n_new:,} imported, {result.n_known:,} known already, "
        f"{result.n_skipped:,} skipped (attempts without an answer)",
        soft_wrap=True,
    )


@app.command("verify", epilog="Example: bridgekd ledger verify")
def verify_command(context: typer.Context, ledger: LedgerPath = None) -> None:
    """Verify that every attempt agrees with its stored texts and that the totals are correct."""
    path = ledger or context.obj
    with show_progress(out) as progress:
        result = verify(path, progress)
    _print_issues(out, [*result.warnings, *result.errors])
    if n := len(result.errors):
        raise InputError(
            f"{path} has {n} error{'s' * (n != 1)}. Another program changed it, or the disk is "
            f"faulty. Keep the file. Restore a backup (or import an export with `bridgekd ledger "
            f"import`) and run this command again."
        )
    out.print(f"{path}: all {result.n_attempts:,} attempts verified", soft_wrap=True)


def _parse_price(text: str | None) -> Price | Literal["published"] | None:
    if text is None:
        return None
    if text == "published":
        return "published"
    try:
        input_usd, output_usd = (float(part) for part in text.split(","))
        return Price(input=input_usd, output=output_usd)
    except ValueError as exc:
        raise InputError(
            f"--price {format_value(text)} is no price. Write INPUT,OUTPUT in dollars per "
            "million tokens, or published."
        ) from exc


def _print_spend(console: Console, spend: SpendDocument) -> None:
    """Print the rows and their total, without the optional columns that are 0 everywhere."""
    total = spend.total
    names = ["attempts", "prompt", "completion"]
    names += ["cached"] * bool(total.n_cached_tokens)
    names += ["reasoning"] * bool(total.n_reasoning_tokens)
    names += ["paid", "reserved"] + ["imported"] * bool(total.imported_microusd)
    groups = ["day (UTC)" if name == "day" else name for name in spend.by]
    table = make_table(f"Ledger {spend.path}", [*groups, *names], right=names)
    for row in spend.rows:
        cells = _format_row(row)
        table.add_row(*(getattr(row, name) for name in spend.by), *(cells[name] for name in names))
    table.add_section()
    cells, empty = _format_row(total), [""] * (len(groups) - 1)
    table.add_row("total", *empty, *(cells[name] for name in names), style="bold")
    print_table(console, table)


def _format_row(row: SpendRow) -> dict[str, str]:
    return {
        "attempts": f"{row.n_attempts:,}",
        "prompt": f"{row.n_prompt_tokens:,}",
        "completion": f"{row.n_completion_tokens:,}",
        "cached": f"{row.n_cached_tokens:,}",
        "reasoning": f"{row.n_reasoning_tokens:,}",
        "paid": format_microusd(row.paid_microusd),
        "reserved": format_microusd(row.reserved_microusd - row.paid_microusd),
        "imported": format_microusd(row.imported_microusd),
    }


def _print_issues(console: Console, issues: Sequence[Issue]) -> None:
    """Print a line per issue: the number of attempts, the issue, and the first ids."""
    for issue in issues:
        count = f"{issue.n:,} attempt{'s' * (issue.n != 1)}: " if issue.n else ""
        more = ", ..." if issue.n > len(issue.ids) else ""
        ids = f" ({', '.join(map(str, issue.ids))}{more})" if issue.ids else ""
        make_printer(console)(f"{count}{issue.what}{ids}")
