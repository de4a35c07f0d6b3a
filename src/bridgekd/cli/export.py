"""`bridgekd export` and `bridgekd ask`: the models of a finished run."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bridgekd import api
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import RunName, StorePath, make_printer, out
from bridgekd.runs.ask import ModelAnswer

ArmName = Annotated[
    str | None, typer.Option(help="A model of the run. Default: the student of its method.")
]


def export_model_command(
    run: RunName,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder.")],
    arm: ArmName = None,
    store: StorePath = Path("runs"),
) -> None:
    """Write a model of a run to a folder: merged weights, its data, and a card for each."""
    with show_progress(out) as progress:
        result = api.export(run, to, arm=arm, store=store, progress=progress)
    print_text = make_printer(out)
    for note in result.notes:
        print_text(f"Note: {note}")
    print_text(
        f"Wrote {to}: {result.arm} in {result.dtype}, {result.n_rows:,} rows of data. Read its "
        f"README.md and the teacher's terms of use before you share it."
    )


def ask_command(
    run: RunName,
    question: Annotated[
        str | None, typer.Argument(help="Default: read one question per line from stdin.")
    ] = None,
    choices: Annotated[
        list[str] | None, typer.Option(help="A choice of the question. Repeat for each choice.")
    ] = None,
    arm: ArmName = None,
    store: StorePath = Path("runs"),
) -> None:
    """Ask the student, its assistant and the base student a question."""
    with show_progress(out) as progress:
        models = api.load_models(run, arm=arm, store=store, progress=progress)
    for text in [question] if question is not None else _read_questions():
        _print_answers(out, text, models.ask(text, choices or []))


def _read_questions() -> Iterator[str]:
    """Yield the lines of stdin up to an empty one."""
    prompt = "Question (empty line to stop): " if sys.stdin.isatty() else ""
    try:
        while line := out.input(prompt).strip():
            yield line
    except EOFError:
        return


def _print_answers(console: Console, question: str, answers: Sequence[ModelAnswer]) -> None:
    table = Table(title=question, title_justify="left", show_lines=True)
    for column in ("model", "rationale", "answer"):
        table.add_column(column, overflow="fold")
    for answer in answers:
        table.add_row(answer.model, answer.rationale, answer.answer)
    console.print(table)
