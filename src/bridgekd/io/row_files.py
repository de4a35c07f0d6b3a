"""Rows on disk: dataclass rows as Parquet files, and JSON lines with their line numbers."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from bridgekd.errors import InputError
from bridgekd.io.damage import translate_damage
from bridgekd.messages import format_value

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Row = TypeVar("Row")
ROW_GROUP_SIZE = 16_384  # rows in a row group, which is read at once
_ARROW_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[int, ...]: pa.list_(pa.int64()),
    tuple[float, ...]: pa.list_(pa.float64()),
}


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> None:
    """Write rows of one dataclass to a Parquet file. The same rows give the same bytes."""
    write_tables(path, row_type, (to_table(group, row_type) for group in group_rows(rows)))


def write_tables(path: Path, row_type: type[Row], tables: Iterable[pa.Table]) -> None:
    """Write tables of rows to a Parquet file, one row group per table."""
    with pq.ParquetWriter(path, _get_schema(row_type)) as writer:
        for table in tables:
            writer.write_table(table)


def write_columns(path: Path, row_type: type[Row], columns: Mapping[str, np.ndarray]) -> None:
    """Write rows to a Parquet file from one array [n] per field. A masked value is None."""
    schema = _get_schema(row_type)
    arrays = [
        pa.array(np.ma.getdata(column), type=field.type, mask=np.ma.getmaskarray(column))
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    pq.write_table(pa.table(arrays, schema=schema), path, row_group_size=ROW_GROUP_SIZE)


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Return all rows of a Parquet file. Raises InputError if it does not have such rows."""
    with translate_damage(path):
        table = pq.read_table(path)
        check_schema(table.schema, row_type)
    return to_rows(table, row_type)


def read_column(path: Path, row_type: type[Row], name: str) -> list[Any]:
    """Return one field of all rows.

    Raises KeyError if the row type has no such field, and InputError if the file does not have it.
    """
    _get_schema(row_type).field(name)
    with translate_damage(path):
        check_schema(pq.read_schema(path), row_type)
        return list(pq.read_table(path, columns=[name]).column(name).to_pylist())


def group_rows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists of ROW_GROUP_SIZE; the last one may be shorter."""
    iterator = iter(rows)
    while group := list(islice(iterator, ROW_GROUP_SIZE)):
        yield group


def to_table(rows: Sequence[Row], row_type: type[Row]) -> pa.Table:
    """Return rows as an Arrow table."""
    schema = _get_schema(row_type)
    arrays = [pa.array([getattr(row, f.name) for row in rows], type=f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def to_rows(table: pa.Table, row_type: type[Row]) -> list[Row]:
    """Return the rows of an Arrow table."""
    list_fields = {f.name for f in _get_schema(row_type) if pa.types.is_list(f.type)}
    columns = [
        map(tuple, column.to_pylist()) if name in list_fields else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    names = table.column_names
    return [row_type(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def check_schema(schema: pa.Schema, row_type: type[Row]) -> None:
    """Raise ValueError unless a schema has the fields of the row type, in their order."""
    expected = _get_schema(row_type)
    if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in expected]:
        raise ValueError(f"its columns are not those of {row_type.__name__}")


def _get_schema(row_type: type[Row]) -> pa.Schema:
    hints = get_type_hints(row_type)
    fields = []
    for field in dataclasses.fields(row_type):  # type: ignore[arg-type]
        hint = hints[field.name]
        is_optional = NoneType in get_args(hint)
        plain = next(t for t in get_args(hint) if t is not NoneType) if is_optional else hint
        fields.append(pa.field(field.name, _ARROW_TYPES[plain], nullable=is_optional))
    return pa.schema(fields)


def read_jsonl(
    path: Path, sha256: "hashlib._Hash | None" = None
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, object) for every line of JSON lines that is not empty.

    `sha256` is updated with the bytes of the file. Raises InputError for a broken line.
    """
    with open_text(path, sha256=sha256) as file, translate_utf8_errors(path):
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse_object(line, f"{path} line {number}")


def parse_json_value(text: str) -> Any:
    """Return a JSON value. Raises ValueError with the reason, also for a key that is there twice.

    Python's reader would drop the first value of a double key without a word.
    """
    try:
        return json.loads(text, object_pairs_hook=_build_object)
    except json.JSONDecodeError as exc:
        line = f"line {exc.lineno} " if "\n" in text.rstrip("\n") else ""
        raise ValueError(f"Broken JSON at {line}column {exc.colno} ({exc.msg})") from exc
    except RecursionError as exc:
        raise ValueError("Too deeply nested") from exc
    except ValueError as exc:
        if "integer string conversion" in str(exc):
            raise ValueError("A whole number has more than 4,300 digits") from exc
        raise


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, JsonValue]:
    row = dict(pairs)
    if len(row) < len(pairs):
        double = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"The key {format_value(double)} is there twice")
    return row


def _parse_object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = parse_json_value(line)
    except ValueError as exc:
        raise InputError(f"{where}: {exc}. Fix or remove the line.") from exc
    if not isinstance(row, dict):
        raise InputError(f"{where}: Expected an object in braces, found {format_value(row)}.")
    if "\\ud" in line.lower():
        check_characters(row, where)
    return row


def check_characters(row: object, where: str) -> None:
    """Raise InputError if a text has half of a surrogate pair, which no file can store."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise InputError(f"{where}: Too deeply nested. Fix or remove the row.") from exc
    except UnicodeEncodeError as exc:
        raise InputError(
            f"{where}: Half of a surrogate pair (\\ud800 to \\udfff) is not a character. Fix "
            "or remove the line."
        ) from exc


class _HashedFile(io.FileIO):
    """A file that hashes its bytes while they are read, so that it is read once."""

    def __init__(self, path: Path, sha256: "hashlib._Hash") -> None:
        super().__init__(path)
        self._sha256 = sha256

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        n = super().readinto(buffer)
        self._sha256.update(memoryview(buffer)[: n or 0])
        return n


@contextmanager
def open_text(
    path: Path, newline: str | None = None, sha256: "hashlib._Hash | None" = None
) -> Iterator[TextIO]:
    """Open a text file for reading; a name ending in .gz is gzip. `newline` is as in `open`.

    Raises InputError if there is no such file, if it is a folder, or if it cannot be read.
    """
    try:
        raw = io.FileIO(path) if sha256 is None else _HashedFile(path, sha256)
    except OSError as exc:
        raise InputError(f"Cannot read {path}: {exc.strerror}. Name another file.") from exc
    with io.BufferedReader(raw) as packed:
        if path.suffix.lower() != ".gz":
            with io.TextIOWrapper(packed, "utf-8-sig", newline=newline) as file:
                yield file
            return
        try:
            with gzip.open(packed, "rt", newline=newline, encoding="utf-8-sig") as unpacked:
                yield unpacked
        except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
            raise InputError(
                f"{path} is not a complete gzip file ({exc}). Download it again."
            ) from exc


@contextmanager
def translate_utf8_errors(path: Path) -> Iterator[None]:
    """Turn a decoding error into an InputError with the file."""
    try:
        yield
    except UnicodeDecodeError as exc:
        raise InputError(f"{path} is not UTF-8 text ({exc.reason}). Save it as UTF-8.") from exc


def append_jsonl(path: Path, row: object) -> None:
    """Append one JSON line that survives a power failure."""
    with open(path, "ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_appended_jsonl(path: Path) -> list[Any]:
    """Return the lines that `append_jsonl` wrote. An incomplete last line is cut off the file."""
    if not path.is_file():
        return []
    complete, newline, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        os.truncate(path, len(complete + newline))
    with translate_damage(path):
        return [json.loads(line) for line in complete.split(b"\n")] if complete else []
