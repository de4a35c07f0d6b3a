"""`bridgekd export` and `bridgekd ask`: what a run has made, to share and to look at."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bridgekd import api
from bridgekd.cli import render_plan
from bridgekd.cli.progress_bars import show_progress
from bridgekd.cli.terminal import RunName, StorePath, out

ArmName = Annotated[
    str | None, typer.Option(help="Which of its models; the student of its method if left out.")
]


def export_model_command(
    run: RunName,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to; new or empty.")],
    arm: ArmName = None,
    store: StorePath = Path("runs"),
) -> None:
    """Write a run's model as a folder to share: merged weights, its data, a card for each."""
    with show_progress(out) as progress:
        done = api.export(run, to, arm=arm, store=store, progress=progress)
    tell = render_plan.make_printer(out)
    for note in done.notes:
        tell(f"Note: {note}")
    tell(
        f"Wrote {to}: {done.arm} in {done.dtype}, {done.n_rows:,} rows of data. Read its "
        f"README.md, and the teacher's terms of use, before you share it."
    )


def ask_command(
    run: RunName,
    question: Annotated[
        str | None, typer.Argument(help="If left out, questions are read line by line.")
    ] = None,
    choices: Annotated[
        list[str] | None, typer.Option(help="An option of the question; give it once for each.")
    ] = None,
    arm: ArmName = None,
    store: StorePath = Path("runs"),
) -> None:
    """Ask the student, its assistant and the untouched student, side by side."""
    with show_progress(out) as progress:
        panel = api.load_models(run, arm=arm, store=store, progress=progress)
    for asked in _questions(question):
        render_plan.print_answers(out, asked, panel.ask(asked, choices or []))


def _questions(question: str | None) -> Iterator[str]:
    """The one, or what is typed or piped in, until an empty line or the end."""
    if question is not None:
        yield question
        return
    prompt = "Question (an empty line ends): " if sys.stdin.isatty() else ""
    try:
        while line := out.input(prompt).strip():
            yield line
    except EOFError:
        return
