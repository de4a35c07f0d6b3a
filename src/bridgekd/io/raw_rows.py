"""Iterate the rows of a data file or a Hub data set, with the place of each row.

Formats: JSON lines, a JSON list, CSV and TSV (comma or semicolon), Parquet; text formats optionally
gzip. A value stays as the format has it: `dataset_reader` and `instruction_reader` interpret it.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bridgekd.errors import InputError
from bridgekd.io.row_files import (
    check_characters,
    open_text,
    parse_json_value,
    read_jsonl,
    translate_utf8_errors,
)
from bridgekd.messages import format_text, format_value

RawRow = tuple[str, Mapping[str, object]]  # ("file line 3", the row)
MAX_CELL_CHARACTERS = 2**31 - 1  # csv's own limit of 131,072 is below the length of some prompts


def iter_raw_rows(path: Path) -> Iterator[RawRow]:
    """Yield (place, row) of a file or of a Hub data set. Raises InputError for a broken row."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in {".jsonl", ".ndjson"}:
        yield from ((f"{path} line {number}", row) for number, row in read_jsonl(path))
    elif suffix == ".json":
        yield from _iter_json(path)
    elif suffix in {".csv", ".tsv"}:
        yield from _iter_csv(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        yield from _iter_parquet(path)
    elif path.is_file():
        raise InputError(
            f"{path}: Unknown file type. Use .jsonl, .json, .csv, .tsv (each optionally .gz) or "
            ".parquet."
        )
    else:
        yield from _iter_hub(str(path))


def _iter_json(path: Path) -> Iterator[RawRow]:
    """Yield the objects of a JSON list; a file that is not one list is read as JSON lines."""
    with open_text(path) as file, translate_utf8_errors(path):
        text = file.read()
    try:
        rows = parse_json_value(text)
    except ValueError as exc:
        if text.lstrip()[:1] == "[":
            raise InputError(f"{path}: {exc}. Fix the file.") from exc
        yield from ((f"{path} line {number}", row) for number, row in read_jsonl(path))
        return
    if isinstance(rows, dict):
        lists = [value for value in rows.values() if isinstance(value, list)]
        rows = lists[0] if len(lists) == 1 else [rows]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        where = f"{path} item {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: Expected an object in braces, found {format_value(row)}.")
        check_characters(row, where)
        yield where, row


def _iter_csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    with open_text(path, newline="") as file, translate_utf8_errors(path):
        header = next((line for line in file if line.strip()), "")
        if delimiter not in header and ";" in header:
            delimiter = ";"
        file.seek(0)
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        rows = (row for row in reader if row)  # a blank line is no row
        try:
            names = next(rows, [])
            _check_header(path, names)
            for row in rows:
                where = f"{path} line {reader.line_num}"
                if len(row) != len(names):
                    raise InputError(
                        f"{where}: The header has {len(names)} fields, this row {len(row)}. Look "
                        f"for a stray {delimiter!r} or quote."
                    )
                yield where, dict(zip(names, row, strict=True))
        except csv.Error as exc:
            raise InputError(
                f"{path} line {reader.line_num}: Broken CSV ({format_text(str(exc))}). Fix it."
            ) from exc


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raise InputError if two columns have one name: a row would have only the second value."""
    double = [name for name, n in Counter(names).items() if n > 1]
    if double:
        raise InputError(
            f"{path} line 1: Two columns have the name {format_value(double[0])}. Rename one."
        )


def _iter_parquet(path: Path) -> Iterator[RawRow]:
    try:
        file = pq.ParquetFile(path)
        _check_header(path, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as exc:
        reason = format_text(str(exc))
        raise InputError(
            f"{path} is not a readable Parquet file ({reason}). Write it again."
        ) from exc


def _iter_hub(hub_id: str) -> Iterator[RawRow]:
    """Yield the rows of `owner/name/config:split`; config and split are optional."""
    path, _, split = hub_id.partition(":")
    owner, _, rest = path.partition("/")
    name, _, config = rest.partition("/")
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as exc:
        raise InputError(
            f"{hub_id} is a Hub data set. To read it, run: pip install 'bridgekd[local]'"
        ) from exc
    try:
        rows = load_dataset(f"{owner}/{name}", config or None, split=split or "train")
    except (OSError, ValueError, DatasetsError) as exc:
        raise InputError(
            f"Cannot load the Hub data set {owner}/{name} (split {split or 'train'}): {exc}"
        ) from exc
    for number, row in enumerate(rows, start=1):
        yield f"{hub_id} row {number}", dict(row)
