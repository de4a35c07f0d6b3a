"""What a person sees of the ledger in the terminal. It only prints what it is given."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bridgekd.cli.documents import SpendDocument
from bridgekd.cli.terminal import widen
from bridgekd.cost.request_cost import format_microusd
from bridgekd.ledger.spend import SpendRow
from bridgekd.ledger.verify import Issue


def print_spend(console: Console, spend: SpendDocument) -> None:
    """The spend table with a total; columns that hold nothing at all are left out."""
    by, total = spend.by, spend.total
    title = f"Ledger {spend.path}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in by:
        table.add_column("day (UTC)" if name == "day" else name, overflow="fold")
    numbers = ["calls", "prompt", "completion"]
    numbers += ["cached"] * bool(total.n_cached_tokens)
    numbers += ["reasoning"] * bool(total.n_reasoning_tokens)
    numbers += ["paid", "held"] + ["paid elsewhere"] * bool(total.imported_microusd)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in spend.rows:
        cells = _format_row(row)
        table.add_row(*(getattr(row, name) for name in by), *(cells[name] for name in numbers))
    table.add_section()
    cells = _format_row(total)
    table.add_row("total", *[""] * (len(by) - 1), *(cells[name] for name in numbers), style="bold")
    widen(console).print(table)


def print_issues(console: Console, findings: Sequence[Issue]) -> None:
    """A line for each: how many attempts it is so of, and which."""
    for finding in findings:
        of = f"{finding.n:,} attempt{'s' * (finding.n != 1)}: " if finding.n else ""
        ids = ", ".join(map(str, finding.ids))
        more = ", ..." if finding.n > len(finding.ids) else ""
        which = f" ({ids}{more})" if ids else ""
        console.print(f"{of}{finding.what}{which}", markup=False, highlight=False, soft_wrap=True)


def _format_row(row: SpendRow) -> dict[str, str]:
    return {
        "calls": f"{row.n_attempts:,}",
        "prompt": f"{row.n_prompt_tokens:,}",
        "completion": f"{row.n_completion_tokens:,}",
        "cached": f"{row.n_cached_tokens:,}",
        "reasoning": f"{row.n_reasoning_tokens:,}",
        "paid": format_microusd(row.paid_microusd),
        "held": format_microusd(row.reserved_microusd - row.paid_microusd),
        "paid elsewhere": format_microusd(row.imported_microusd),
    }
