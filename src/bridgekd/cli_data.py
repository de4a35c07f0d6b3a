"""`bridgekd data`: published data sets and recordings, as the files a recipe names."""

from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from bridgekd.config import Amount, Fields
from bridgekd.edges.converting import Format, Targets, convert
from bridgekd.edges.recorded import RecordedFormat
from bridgekd.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="Published data sets, as the files a recipe names.")
out = Console()

FORMATS = ("mentor-kd", "palm540b-dss", "pubmedqa", "tatqa", "self-instruct", "rows")


@app.callback()
def data() -> None:
    """Published data sets, as the files a recipe names."""


@app.command(
    "convert",
    epilog="Example: bridgekd data convert test.tsv.gz --format rows --field question=text "
    "--field answer=label --to train.jsonl --held-out-to test.jsonl --held-out 30%",
)
def convert_(
    files: Annotated[list[Path], typer.Argument(help="As they were published, gzip-ed or not.")],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The questions, as JSON lines.")],
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    recordings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The recorded answers, for transport: replay."),
    ] = None,
    held_out_to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Questions set aside, for a test set.")
    ] = None,
    held_out: Annotated[
        str, typer.Option(help="A number, a share, or a published split's file of test ids (JSON).")
    ] = "0",
    ask: Annotated[str, typer.Option(help="Put below each question.")] = "",
    field: Annotated[
        list[str] | None, typer.Option(help="For rows: --field question=text, and so on.")
    ] = None,
) -> None:
    """Write questions (and recorded answers) from published files, each question once."""
    written_as = _format(format)
    amount = _amount(held_out)
    if (amount in (0, "0%")) != (held_out_to is None):
        raise BadInput("--held-out and --held-out-to go together; give both or neither")
    if recordings is not None and format not in get_args(RecordedFormat):
        raise BadInput(f"{format} holds no recorded answers; leave --recordings out")
    done = convert(
        files,
        written_as,
        Targets(to, held_out_to, recordings),
        fields=_fields(field or []),
        ask=ask,
        held_out=amount,
    )
    text = f"Wrote {done.n_questions:,} rows to {to}"
    text += f", {done.n_held_out:,} to {held_out_to}" if held_out_to else ""
    text += f", {done.n_recordings:,} recorded answers to {recordings}" if recordings else ""
    out.print(text, soft_wrap=True, highlight=False, markup=False)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise BadInput(f"--format {name!r} is unknown; known: {', '.join(FORMATS)}")
    return name  # type: ignore[return-value]


def _amount(written: str) -> int | str | Path:
    if Path(written).is_file():
        return Path(written)
    try:
        value: int | str = TypeAdapter(Amount).validate_python(
            int(written) if written.isdecimal() else written
        )
    except ValidationError as exc:
        raise BadInput(
            f"--held-out {written!r}: give a number, a share such as 30%, or a file of ids"
        ) from exc
    return value


def _fields(written: list[str]) -> Fields:
    pairs = dict(part.partition("=")[::2] for part in written)
    try:
        return Fields(**pairs)
    except (ValidationError, TypeError) as exc:
        known = ", ".join(Fields.model_fields)
        raise BadInput(f"--field {' '.join(written)!r}: write NAME=COLUMN; names: {known}") from exc
